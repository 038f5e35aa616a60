// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * For libFuzzer: the readers of definitions, of machines and of networks; the input is the text.
 *
 * What must hold, beside that no sanitizer complains: what is refused has a reason; what is taken is written, and read
 * as the same again.
 */
#include <json-c/json.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "userspace/moatd/definition.h"
#include "userspace/moatd/network_definition.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void try_machine(const char *text, size_t len)
{
	static struct definition definition, again;
	struct definition_error error;
	char *written;

	if (definition_read(&definition, text, len, &error)) {
		must(*error.text);
		return;
	}
	json_object_put(definition_json(&definition));
	written = definition_write(&definition);
	must(written && !definition_read(&again, written, strlen(written), &error));
	must(!memcmp(&definition, &again, sizeof(again)));
	free(written);
}

static void try_network(const char *text, size_t len)
{
	static struct network_definition definition, again;
	struct definition_error error;
	char *written;

	if (network_definition_read(&definition, text, len, &error)) {
		must(*error.text);
		return;
	}
	json_object_put(network_definition_json(&definition));
	written = network_definition_write(&definition);
	must(written && !network_definition_read(&again, written, strlen(written), &error));
	must(!memcmp(&definition, &again, sizeof(again)));
	free(written);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	try_machine((const char *)data, size);
	try_network((const char *)data, size);
	return 0;
}
