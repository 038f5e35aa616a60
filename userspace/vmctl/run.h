/* SPDX-License-Identifier: MIT OR GPL-2.0 */
#ifndef VMCTL_RUN_H
#define VMCTL_RUN_H

#define STATUS_FAILED		125	/* vmctl itself failed, as other such commands have it */
#define STATUS_CANNOT_EXECUTE	126
#define STATUS_NOT_FOUND	127

/* What vmctl help run prints. */
extern const char run_help[];

/* vmctl run. @argv[0] is "run". Return: exit status. */
int run_main(int argc, char **argv);

#endif /* VMCTL_RUN_H */
