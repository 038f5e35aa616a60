/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_VERBS_H
#define VMM_VERBS_H

struct control_verb;

/* What requests do with a machine, their owner: for control_init(). */
extern const struct control_verb verbs[];

#endif /* VMM_VERBS_H */
