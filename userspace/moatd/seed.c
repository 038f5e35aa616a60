// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * cloud-init reads YAML. What is written here is JSON, which is YAML, so that a string is one whatever it
 * holds: in JSON's quotes there are no lines and no comments, and nothing but a quote or a backslash, which
 * are escaped, means anything. Also escaped is what YAML has no place for: control characters, and those
 * that Unicode takes for the end of a line.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <libburn/libburn.h>
#include <libisofs/libisofs.h>

#include "userspace/lib/array.h"
#include "userspace/lib/fd.h"
#include "userspace/moatd/disk_file.h"
#include "userspace/moatd/seed.h"

#define SEED_LABEL	"CIDATA"
#define SEED_TEXT_MAX	(1 << 20)
#define SEED_BLOCK	2048

/* JSON */

/* A character of UTF-8, in its shortest form. Return: how many bytes it takes; 0: it is none. */
static int utf8_read(const unsigned char *at, uint32_t *ret)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const int length = *at < 0x80 ? 1 : *at >> 5 == 6 ? 2 : *at >> 4 == 14 ? 3 : *at >> 3 == 30 ? 4 : 0;
	uint32_t c = length == 1 ? *at : *at & (0x7f >> length);

	for (int i = 1; i < length; i++) {
		if (at[i] >> 6 != 2)
			return 0;
		c = c << 6 | (at[i] & 0x3f);
	}
	*ret = c;
	return c < least[length] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : length;
}

/* What YAML cannot have as it is, or takes for more than a character. */
static bool json_escapes(uint32_t c)
{
	return c < ' ' || c == '"' || c == '\\' || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 ||
	       c == 0xfeff || c == 0xfffe || c == 0xffff;
}

/* False: it is not UTF-8. */
static bool json_string(FILE *to, const char *text)
{
	const unsigned char *at = (const unsigned char *)text;
	uint32_t c;
	int length;

	fputc('"', to);
	for (; *at; at += length) {
		length = utf8_read(at, &c);
		if (!length)
			return false;
		if (json_escapes(c))
			fprintf(to, "\\u%04x", c);
		else
			fwrite(at, 1, length, to);
	}
	fputc('"', to);
	return true;
}

/* `"name":"text"`, with what comes before; nothing where there is no text. */
static bool json_member(FILE *to, const char *before, const char *name, const char *text)
{
	if (!text)
		return true;
	fprintf(to, "%s\"%s\":", before, name);
	return json_string(to, text);
}

/* The three files. Each is one line, and false: a string of the spec is not UTF-8. */

static bool write_user_data(FILE *to, const struct seed_spec *spec)
{
	bool good;

	fprintf(to, "#cloud-config\n{");
	good = json_member(to, "", "hostname", spec->hostname) &&
	       json_member(to, ",\"users\":[{", "name", spec->user);
	fprintf(to, ",\"shell\":\"/bin/bash\",\"sudo\":\"ALL=(ALL) NOPASSWD:ALL\",\"lock_passwd\":%s",
		spec->password_hash ? "false" : "true");
	good = good && json_member(to, ",", "passwd", spec->password_hash);
	fprintf(to, ",\"ssh_authorized_keys\":[");
	for (size_t i = 0; i < spec->key_count && good; i++) {
		fputs(i ? "," : "", to);
		good = json_string(to, spec->keys[i]);
	}
	fprintf(to, "]}],\"ssh_pwauth\":%s}\n", spec->password_hash ? "true" : "false");
	return good;
}

static bool write_meta_data(FILE *to, const struct seed_spec *spec)
{
	const bool good = json_member(to, "{", "instance-id", spec->instance ?: spec->hostname) &&
			  json_member(to, ",", "local-hostname", spec->hostname);

	fprintf(to, "}\n");
	return good;
}

static bool write_network_config(FILE *to, const struct seed_spec *spec)
{
	const struct seed_network *network = spec->network;
	const char *const any = network->gateway && strchr(network->gateway, ':') ? "::/0" : "0.0.0.0/0";
	bool good;

	fprintf(to, "{\"version\":2,\"ethernets\":{\"net0\":{\"match\":");
	good = json_member(to, "{", network->mac ? "macaddress" : "name", network->mac ?: "e*");
	if (!network->address) {
		fprintf(to, "},\"dhcp4\":true}}}\n");
		return good;
	}
	fprintf(to, "},\"addresses\":[");
	good = good && json_string(to, network->address);
	if (network->gateway)
		fprintf(to, "],\"routes\":[{\"to\":\"%s\"", any);
	good = good && json_member(to, ",", "via", network->gateway);
	fprintf(to, network->gateway ? "}]" : "]");
	if (network->nameserver) {
		fprintf(to, ",\"nameservers\":{\"addresses\":[");
		good = good && json_string(to, network->nameserver);
		fprintf(to, "]}");
	}
	fprintf(to, "}}}\n");
	return good;
}

static const struct {
	const char *name;
	bool (*write)(FILE *to, const struct seed_spec *spec);
} seed_files[] = {
	{ "meta-data",		write_meta_data },
	{ "user-data",		write_user_data },
	{ "network-config",	write_network_config },
};

struct seed_text {
	char *text;
	size_t length;
};

static int text_make(struct seed_text *ret, bool (*write)(FILE *to, const struct seed_spec *spec),
		     const struct seed_spec *spec)
{
	FILE *to = open_memstream(&ret->text, &ret->length);
	bool good;

	if (!to)
		return -ENOMEM;
	good = write(to, spec);
	if (fclose(to))
		return -ENOMEM;
	if (!good)
		return -EILSEQ;
	return ret->length <= SEED_TEXT_MAX ? 0 : -E2BIG;
}

/* The image */

/* The stream takes the text over. */
static int image_add(IsoImage *image, const char *name, struct seed_text *text)
{
	IsoStream *stream;

	if (iso_memory_stream_new((unsigned char *)text->text, text->length, &stream) < 0)
		return -ENOMEM;
	text->text = NULL;
	if (iso_tree_add_new_file(iso_image_get_root(image), name, stream, NULL) >= 0)
		return 0;
	iso_stream_unref(stream);
	return -ENOMEM;
}

static int image_fill(IsoImage *image, const struct seed_spec *spec)
{
	int err = 0;

	for (size_t i = 0; i < ARRAY_SIZE(seed_files) && !err; i++) {
		struct seed_text text = { 0 };

		if (seed_files[i].write == write_network_config && !spec->network)
			continue;
		err = text_make(&text, seed_files[i].write, spec);
		if (!err)
			err = image_add(image, seed_files[i].name, &text);
		free(text.text);
	}
	return err;
}

/* All of it is read, since another thread makes it. */
static int image_read(struct burn_source *source, int to)
{
	unsigned char block[SEED_BLOCK];
	int n, err = 0;

	while ((n = source->read ? source->read(source, block, sizeof(block)) :
				   source->read_xt(source, block, sizeof(block))) > 0)
		if (!err)
			err = fd_write_full(to, block, n);
	return n < 0 ? -EIO : err;
}

/* With Rock Ridge and Joliet, since ISO 9660 itself has no such names. */
static int image_write(IsoImage *image, int to)
{
	struct burn_source *source;
	IsoWriteOpts *options;
	int err;

	if (iso_write_opts_new(&options, 0) < 0)
		return -ENOMEM;
	iso_write_opts_set_rockridge(options, 1);
	iso_write_opts_set_joliet(options, 1);
	/* Whoever made it is not to be seen in it. */
	iso_write_opts_set_replace_mode(options, 1, 1, 1, 1);
	err = iso_image_create_burn_source(image, options, &source) < 0 ? -EIO : 0;
	if (!err) {
		err = image_read(source, to);
		source->free_data(source);
		free(source);
	}
	iso_write_opts_free(options);
	return err;
}

static int image_make_seed(const struct seed_spec *spec, int to)
{
	IsoImage *image;
	int err;

	if (iso_init() < 0)
		return -ENOMEM;
	iso_set_msgs_severities("NEVER", "NEVER", "");
	err = iso_image_new(SEED_LABEL, &image) < 0 ? -ENOMEM : 0;
	if (!err) {
		err = image_fill(image, spec);
		if (!err)
			err = image_write(image, to);
		iso_image_unref(image);
	}
	iso_finish();
	return err;
}

int seed_create(const struct seed_spec *spec, int *ret_fd, char *why)
{
	int fd = memfd_create("seed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int err;

	if (fd < 0)
		return disk_fail(why, -errno, "no memory for a seed: %s", strerror(errno));
	err = image_make_seed(spec, fd);
	if (!err && fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		err = -errno;
	if (!err) {
		*ret_fd = fd;
		return 0;
	}
	close(fd);
	return disk_fail(why, err, err == -EILSEQ ? "what the seed is to say is not UTF-8: %s" :
			 "no seed: %s", strerror(-err));
}
