/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMM_VERBS_H
#define VMM_VERBS_H

struct control_verb;
struct loop_source;

/* What requests do with a machine, their owner: for control_init(). */
extern const struct control_verb verbs[];

/* The machine's @devices.news, which the control's loop waits for, is ready. */
void verbs_tell_news(struct loop_source *source);

/* So is its @dump.done. */
void verbs_dump_done(struct loop_source *source);

#endif /* VMM_VERBS_H */
