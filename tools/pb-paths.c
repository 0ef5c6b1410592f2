/* pb-paths: what recorded xDS answers say, by field.
 *
 *     pb-paths FILE.pb...
 *         every field that is set in any resource, by its path, sorted
 *     pb-paths --unknown FILE.pb
 *         only fields that our .proto files don't have ("#" and number)
 *     pb-paths --json FILE.pb
 *         each response as JSON, one a line
 *     pb-paths --types
 *         the types that are known by URL
 *
 * A file holds DeltaDiscoveryResponses, or DiscoveryResponses if its name ends in
 * -sotw.pb, each after its length as a varint. Paths begin anew within an Any. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "proto/hd_pb_json.h"
#include "proto/hd_pb_reflect.h"
#include "xds/discovery.pb-c.h"

#define MEMORY_MAX ((size_t)256 << 20)

typedef struct {
    char **paths;
    size_t n, size;
} list_t;

_Noreturn static void die(const char *file, const char *why)
{
    fprintf(stderr, "pb-paths: %s%s%s\n", file, *file != '\0' ? ": " : "", why);
    exit(1);
}

static void *must(void *p)
{
    if (p == NULL)
        die("", "out of memory");
    return p;
}

static void on_place(void *arg, const hd_pb_place_t *at)
{
    list_t *l = arg;

    if (l->n == l->size) {
        l->size = l->size == 0 ? 1024 : 2 * l->size;
        l->paths = must(realloc(l->paths, l->size * sizeof(*l->paths)));
    }
    l->paths[l->n++] = must(strdup(at->path));
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void print_distinct(list_t *l)
{
    if (l->n > 0)
        qsort(l->paths, l->n, sizeof(*l->paths), compare);
    for (size_t i = 0; i < l->n; i++) {
        if (i == 0 || strcmp(l->paths[i], l->paths[i - 1]) != 0)
            puts(l->paths[i]);
    }
    for (size_t i = 0; i < l->n; i++)
        free(l->paths[i]);
    free(l->paths);
}

static uint8_t *read_file(const char *name, size_t *len)
{
    FILE *f = fopen(name, "rb");
    uint8_t *bytes = NULL;
    size_t n, size = 0;

    if (f == NULL)
        die(name, strerror(errno));
    *len = 0;
    do {
        size = size == 0 ? 65536 : 2 * size;
        bytes = must(realloc(bytes, size));
        n = fread(bytes + *len, 1, size - *len, f);
        *len += n;
    } while (*len == size);
    fclose(f);
    return bytes;
}

/* The length before the next message, or -1. */
static int64_t take_length(const uint8_t **at, const uint8_t *end)
{
    uint64_t len = 0;

    for (unsigned shift = 0; shift < 35 && *at < end; shift += 7) {
        uint8_t b = *(*at)++;

        len |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80)
            return len <= (uint64_t)(end - *at) ? (int64_t)len : -1;
    }
    return -1;
}

static void walk(const char *file, const void *msg, bool only_unknown, list_t *list)
{
    hd_pb_rc_t rc = only_unknown ? hd_pb_unknown_fields(msg, MEMORY_MAX, on_place, list)
                                 : hd_pb_walk(msg, MEMORY_MAX, on_place, list);

    if (rc != HD_PB_OK)
        die(file, "an Any that can't be decoded");
}

static void treat_response(const char *file, const ProtobufCMessage *msg,
                           const char *mode, list_t *list)
{
    const PbDiscovery__DeltaDiscoveryResponse *delta = (const void *)msg;
    const PbDiscovery__DiscoveryResponse *sotw = (const void *)msg;
    hd_pb_fault_t fault;
    char text[256];

    if (strcmp(mode, "--json") == 0) {
        if (hd_pb_to_json(msg, NULL, hd_pb_write_file, stdout, &fault) != HD_PB_OK) {
            hd_pb_fault_print(&fault, text, sizeof(text));
            die(file, text);
        }
        putchar('\n');
    } else if (strcmp(mode, "--unknown") == 0) {
        walk(file, msg, true, list);
    } else if (msg->descriptor == HD_PB(pb_discovery__delta_discovery_response)) {
        for (size_t i = 0; i < delta->n_resources; i++)
            walk(file, delta->resources[i]->resource, false, list);
    } else {
        for (size_t i = 0; i < sotw->n_resources; i++)
            walk(file, sotw->resources[i], false, list);
    }
}

static void treat_file(const char *file, const char *mode, list_t *list)
{
    size_t len, name_len = strlen(file);
    uint8_t *bytes = read_file(file, &len);
    const uint8_t *at = bytes, *end = bytes + len;
    bool is_sotw = name_len >= 8 && strcmp(file + name_len - 8, "-sotw.pb") == 0;
    const ProtobufCMessageDescriptor *type =
        is_sotw ? HD_PB(pb_discovery__discovery_response)
                : HD_PB(pb_discovery__delta_discovery_response);

    while (at < end) {
        int64_t n = take_length(&at, end);
        hd_pb_arena_t arena;
        hd_pb_fault_t fault;
        char text[256];

        if (n < 0)
            die(file, "not messages with their lengths before them");
        hd_pb_arena_init(&arena, MEMORY_MAX);

        const ProtobufCMessage *msg = hd_pb_unpack(type, at, (size_t)n, &arena, &fault);

        if (msg == NULL) {
            hd_pb_fault_print(&fault, text, sizeof(text));
            die(file, text);
        }
        treat_response(file, msg, mode, list);
        hd_pb_arena_deinit(&arena);
        at += n;
    }
    free(bytes);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 && argv[1][0] == '-' ? argv[1] : "";
    list_t list = {0};
    size_t types_n;

    if (strcmp(mode, "--types") == 0) {
        const ProtobufCMessageDescriptor *const *types = hd_pb_types(&types_n);

        for (size_t i = 0; i < types_n; i++)
            puts(types[i]->name);
        return 0;
    }
    if (argc < 2 ||
        (*mode != '\0' && strcmp(mode, "--json") != 0 && strcmp(mode, "--unknown") != 0))
        die("", "usage: pb-paths [--unknown | --json] FILE.pb... | --types");
    for (int i = *mode != '\0' ? 2 : 1; i < argc; i++)
        treat_file(argv[i], mode, &list);
    print_distinct(&list);
    return 0;
}
