/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The terminal that vmctl was started on, and the signals that it takes as they come. */
#ifndef VMCTL_TERMINAL_H
#define VMCTL_TERMINAL_H

#include "moat/run.h"

/* Standard input in raw mode until terminal_restore(), or the process exits. 0 or an errno. */
int terminal_set_raw(void);
void terminal_restore(void);

/* All zero where it has none. */
struct run_window_size terminal_size(void);

/*
 * From here on signals come by the descriptor that is returned: those that end a program, SIGUSR1,
 * SIGUSR2, SIGWINCH and SIGCHLD; SIGPIPE does nothing. Or a negative errno.
 */
int terminal_signals(void);

/* The number of the next one, 0: there is none. */
int terminal_next_signal(int fd);

#endif /* VMCTL_TERMINAL_H */
