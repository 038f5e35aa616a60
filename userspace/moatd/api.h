/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef MOATD_API_H
#define MOATD_API_H

struct varlink;

/* org.moat, as org.moat.varlink describes it. */
extern const struct varlink api;

#endif /* MOATD_API_H */
