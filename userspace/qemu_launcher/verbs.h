/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef QEMU_LAUNCHER_VERBS_H
#define QEMU_LAUNCHER_VERBS_H

struct control_call;
struct control_verb;
struct launcher;
struct loop_source;

/* What requests do with a machine, their owner, a struct launcher: for control_init(). */
extern const struct control_verb verbs[];

/* The launcher's @qmp.news, which the control's loop waits for, is ready. */
void verbs_take_news(struct loop_source *source);

/* attach.c: devices that come and go. */
int verb_attach(struct control_call *call);
int verb_detach(struct control_call *call);

/* QEMU says that the guest has let the device go. */
void attach_gone(struct launcher *launcher, const char *id);

/* The supervisor's socket, for those who come by it. 0 or a negative errno. */
int attach_listen(struct launcher *launcher);

#endif /* QEMU_LAUNCHER_VERBS_H */
