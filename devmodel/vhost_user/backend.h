/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* A device, served to one front end at a time by the vhost-user protocol. */
#ifndef DEVMODEL_VHOST_USER_BACKEND_H
#define DEVMODEL_VHOST_USER_BACKEND_H

#include "devmodel/device.h"

struct backend;

/* @dev stays the caller's, and must stay for as long. 0 or a negative errno. */
int backend_create(struct device *dev, struct backend **ret);

/* NULL is fine. */
void backend_destroy(struct backend *backend);

/**
 * backend_attach - begin with a front end, of which nothing is known yet
 * @socket: the back end's from here on; no other front end is attached
 */
void backend_attach(struct backend *backend, int socket);

/* The device is stopped, and everything that came from the front end is given up. */
void backend_detach(struct backend *backend);

/**
 * backend_serve - wait for one message of the front end, and do as it says
 * Return: 1; 0 where the front end has gone; a negative errno where it has to be dropped, for the
 * reason that backend_fault() gives.
 */
int backend_serve(struct backend *backend);

/* In words: which message, and what was wrong with it. Valid until the next one. */
const char *backend_fault(const struct backend *backend);

/* Tells the front end that the device's configuration has changed, if it wanted to know. */
int backend_config_changed(struct backend *backend);

#endif /* DEVMODEL_VHOST_USER_BACKEND_H */
