/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Moat's version, here and nowhere else: the module's, the programs', the packages'. */
#ifndef MOAT_VERSION_H
#define MOAT_VERSION_H

#define MOAT_VERSION	"0.1"

#endif /* MOAT_VERSION_H */
