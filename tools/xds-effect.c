/* xds-effect: which fields of recorded xDS answers have no effect here.
 *
 *     xds-effect MODULES_DIR FILE-delta.pb...
 *
 * Of every field path that occurs, values are changed, one at a time, and the resource is
 * built anew: the field has an effect if what was built differs, byte by byte, or if the
 * change is refused. Paths that never do are printed, one a line: "PATH\tno effect", or,
 * where every resource that has the path is refused anyway, "PATH\trefused: why". The
 * modules in MODULES_DIR are loaded, so what they read counts. */
#include "core/conf/hd_module_table.h"
#include "core/loom/hd_batch.h"
#include "core/base/hd_map.h"
#include "core/proc/hd_modules.h"
#include "http/hd_http.h"
#include "mesh/xds/hd_xds.h"
#include "proto/hd_pb.h"
#include "proto/hd_pb_reflect.h"
#include "stream/hd_tcp.h"
#include "xds/discovery.pb-c.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MEMORY_MAX ((size_t)256 << 20)
#define IMAGE_BYTES ((size_t)64 << 20)
#define PATH_MAX_BYTES 1024
#define SAMPLES_MAX 48 /* places that are tried before a path is given up */
#define VARIANTS 8     /* ways to change a value */

_Noreturn static void die(const char *what, const char *why)
{
    fprintf(stderr, "xds-effect: %s: %s\n", what, why);
    exit(1);
}

/* --- what a resource is built into: a run of memory that is the same each time --- */

typedef struct {
    char *bytes;
    size_t used;
} image_t;

static void *take_memory(void *owner, size_t bytes, size_t align)
{
    image_t *im = owner;
    size_t at = hd_align_up(im->used, align);

    if (at + bytes > IMAGE_BYTES)
        die("a resource", "too big");
    im->used = at + bytes;
    return im->bytes + at;
}

static const hd_pool_source_t image_source = {.take = take_memory};

static image_t image;
static hd_state_t *state;
static hd_arena_t *arena;
static hd_member_t *member;

/* What was built, as a number, or why not. */
typedef struct {
    bool is_refused;
    uint64_t print;
    char why[HD_ERR_TEXT_MAX];
} result_t;

static hd_rc_t accept_log(hd_conf_t *cf, hd_str_t path, hd_err_t *err)
{
    (void)cf;
    (void)path;
    (void)err;
    return HD_OK;
}

static const hd_build_ops_t build_ops = {.need_log = accept_log};

static uint64_t print_needs(const hd_xds_built_t *out, uint64_t h)
{
    const hd_xds_need_t *needs = out->needs.items;

    for (size_t i = 0; i < out->needs.n; i++) {
        h = hd_hash64(needs[i].name.data, needs[i].name.len, h);
        h = hd_hash64(&needs[i].wait_ms, sizeof(needs[i].wait_ms), h + needs[i].kind);
        h = hd_hash64(&needs[i].is_local, 1, h);
    }
    return h;
}

/* Every name is known, and is the same host, of both families. */
static hd_xds_names_t resolve(void *arg, hd_str_t host, const hd_dns_conf_t *how)
{
    static const hd_addr_t both[] = {{.family = AF_INET, .v4 = {127, 0, 0, 1}},
                                     {.family = AF_INET6, .v6 = {[15] = 1}}};

    (void)arg;
    (void)host;
    if (how->family == HD_DNS_V6_ONLY || how->family == HD_DNS_AUTO)
        return (hd_xds_names_t){both + 1, 1, both + 1};
    return (hd_xds_names_t){both, how->family == HD_DNS_ALL ? 2 : 1, both};
}

static void build(hd_xds_kind_t kind, const void *bytes, size_t len, result_t *r)
{
    static hd_build_t how = {
        .ops = &build_ops, .prefix = HD_STR_INIT("/"), .conf_dir = HD_STR_INIT("/")};
    hd_pool_t *temp = hd_pool_create(0), *pool;
    hd_err_t err = {0};
    hd_xds_built_t out;
    hd_xds_env_t env = {.arena = arena,
                        .member = member,
                        .temp = temp,
                        .build = &how,
                        .resolve = resolve};

    memset(image.bytes, 0, image.used);
    image.used = 0;
    pool = hd_pool_create_on(&image_source, &image);
    env.pool = pool;
    r->is_refused = hd_xds_build(&env, kind, HD_STR_NONE, hd_str_n(bytes, len),
                                 HD_STR("1"), &out, &err) != HD_OK;
    r->why[0] = '\0';
    if (r->is_refused)
        (void)snprintf(r->why, sizeof(r->why), "%s", err.text);
    else
        r->print = print_needs(&out, hd_hash64(image.bytes, image.used, 1));
    hd_pool_destroy(pool);
    hd_pool_destroy(temp);
}

/* --- paths --- */

typedef struct {
    char *path;
    unsigned samples_n;
    bool has_effect, is_built; /* is_built: in a resource that isn't refused */
    char *why;                 /* of a refusal */
} path_t;

static hd_map_t *paths; /* path_t * */

static path_t *find_path(const char *text)
{
    path_t *p = hd_map_get(paths, hd_str_c(text));

    if (p != NULL)
        return p;
    p = calloc(1, sizeof(*p));
    if (p == NULL || (p->path = strdup(text)) == NULL)
        die(text, "out of memory");
    hd_ignore(hd_map_put(paths, hd_str_c(p->path), p) == NULL);
    return p;
}

/* --- walking, and changing one value on the way --- */

typedef struct {
    const char *target; /* NULL: paths are gathered */
    unsigned at, occurrence, variant;
    bool is_changed, is_refused;
    const char *why;
    hd_pb_arena_t *pb;
    hd_map_t *here; /* gathering: path_t of this resource */
} walk_t;

static size_t size_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return 4;
    }
}

static void *value_at(ProtobufCMessage *msg, const ProtobufCFieldDescriptor *f, size_t i)
{
    char *at = (char *)msg + f->offset;

    return f->label == PROTOBUF_C_LABEL_REPEATED ? *(char **)at + i * size_of(f->type)
                                                 : at;
}

static bool is_well_known(const ProtobufCMessageDescriptor *d)
{
    return strncmp(d->name, "google.protobuf.", 16) == 0 &&
           strcmp(d->name, "google.protobuf.Any") != 0;
}

/* Unsets the field, or its last element. */
static bool clear_field(ProtobufCMessage *msg, const ProtobufCFieldDescriptor *f)
{
    size_t *n = (size_t *)((char *)msg + f->quantifier_offset);

    if (f->label == PROTOBUF_C_LABEL_REPEATED) {
        (*n)--;
        return true;
    }
    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        *(int *)((char *)msg + f->quantifier_offset) = 0;
        return true;
    }
    if (f->type != PROTOBUF_C_TYPE_MESSAGE)
        return false;
    *(void **)((char *)msg + f->offset) = NULL;
    return true;
}

static bool change_enum(int *value, const ProtobufCEnumDescriptor *d, unsigned variant)
{
    if (variant >= d->n_values)
        return false;
    *value = d->values[variant].value == *value
                 ? d->values[(variant + 1) % d->n_values].value
                 : d->values[variant].value;
    return true;
}

static bool change_text(const char **text, hd_pb_arena_t *pb, unsigned variant)
{
    size_t len = strlen(*text);
    char *to = hd_pb_arena_alloc(pb, len + 3);

    if (to == NULL || variant > 1)
        return false;
    /* at the end, and for what must keep its end: in front */
    (void)snprintf(to, len + 3, variant == 0 ? "%sx" : "x%s", *text);
    if (variant == 0 && len > 0 && to[len - 1] >= '0' && to[len - 1] <= '9') {
        to[len - 1] = to[len - 1] == '9' ? '8' : (char)(to[len - 1] + 1);
        to[len] = '\0';
    }
    *text = to;
    return true;
}

static bool change_well_known(ProtobufCMessage *msg, walk_t *w);

static uint64_t change_number(uint64_t n, unsigned variant)
{
    return variant == 0 ? n + 1 : variant == 1 ? n - 1 : 0;
}

/* True: changed, in the w->variant-th way. */
static bool change(ProtobufCMessage *msg, const ProtobufCFieldDescriptor *f, size_t i,
                   walk_t *w)
{
    void *v = value_at(msg, f, i);
    unsigned variant = w->variant;

    if (variant == VARIANTS - 1)
        return clear_field(msg, f);
    switch (f->type) {
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)v = !*(protobuf_c_boolean *)v;
        return variant == 0;
    case PROTOBUF_C_TYPE_STRING:
        return change_text(v, w->pb, variant);
    case PROTOBUF_C_TYPE_BYTES:
        ((ProtobufCBinaryData *)v)->len -= ((ProtobufCBinaryData *)v)->len > 0;
        return variant == 0;
    case PROTOBUF_C_TYPE_ENUM:
        return change_enum(v, f->descriptor, variant);
    case PROTOBUF_C_TYPE_DOUBLE:
        *(double *)v += variant == 0 ? 1 : -1;
        return variant < 2;
    case PROTOBUF_C_TYPE_FLOAT:
        *(float *)v += variant == 0 ? 1 : -1;
        return variant < 2;
    case PROTOBUF_C_TYPE_MESSAGE:
        return is_well_known(f->descriptor) && change_well_known(*(void **)v, w);
    default:
        if (size_of(f->type) == 8)
            *(uint64_t *)v = change_number(*(uint64_t *)v, variant);
        else
            *(uint32_t *)v = (uint32_t)change_number(*(uint32_t *)v, variant);
        return variant < 3;
    }
}

/* A duration, a wrapper, a struct: its <n>-th set value in order of depth; a single one
 * in the <variant>-th way. */
static bool change_nth(ProtobufCMessage *msg, walk_t *w, unsigned *n)
{
    for (unsigned k = 0; k < msg->descriptor->n_fields; k++) {
        const ProtobufCFieldDescriptor *f = &msg->descriptor->fields[k];
        size_t count = hd_pb_count(msg, f);

        for (size_t i = 0; i < count; i++) {
            if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
                if (change_nth(*(ProtobufCMessage **)value_at(msg, f, i), w, n))
                    return true;
            } else if ((*n)-- == 0) {
                walk_t one = *w;

                one.variant = msg->descriptor->n_fields == 1 ? w->variant : 0;
                return change(msg, f, i, &one);
            }
        }
    }
    return false;
}

static bool change_well_known(ProtobufCMessage *msg, walk_t *w)
{
    bool is_single = msg->descriptor->n_fields == 1;
    unsigned n = is_single ? 0 : w->variant;
    const ProtobufCFieldDescriptor *f = &msg->descriptor->fields[0];

    if (change_nth(msg, w, &n))
        return true;
    if (w->variant > 0 || msg->descriptor->n_fields == 0)
        return false;
    /* 0, "" or false isn't set: it becomes something */
    if (f->type == PROTOBUF_C_TYPE_BOOL || f->type == PROTOBUF_C_TYPE_UINT32 ||
        f->type == PROTOBUF_C_TYPE_INT32)
        *(int *)((char *)msg + f->offset) = 1;
    else if (f->type == PROTOBUF_C_TYPE_INT64 || f->type == PROTOBUF_C_TYPE_UINT64)
        *(int64_t *)((char *)msg + f->offset) = 1;
    else if (f->type == PROTOBUF_C_TYPE_DOUBLE)
        *(double *)((char *)msg + f->offset) = 1;
    else
        return false;
    return true;
}

static void walk(ProtobufCMessage *msg, const char *prefix, walk_t *w);

static void walk_any(Pb__Any *any, walk_t *w)
{
    ProtobufCMessage *inner = hd_pb_unpack_any(any, w->pb, NULL);
    ProtobufCBinaryData bytes;
    bool was_changed = w->is_changed;

    if (inner == NULL)
        return;
    walk(inner, inner->descriptor->name, w);
    if (w->is_changed && !was_changed && hd_pb_pack(inner, w->pb, &bytes))
        any->value = bytes;
}

static void walk_value(ProtobufCMessage *value, const char *path, walk_t *w)
{
    if (value->descriptor == HD_PB(pb__any))
        walk_any((Pb__Any *)value, w);
    else if (!is_well_known(value->descriptor))
        walk(value, path, w);
}

/* This is the place that is asked for. */
static bool is_target(const char *path, walk_t *w)
{
    return w->target != NULL && strcmp(path, w->target) == 0 && w->at++ == w->occurrence;
}

/* A map's entries stand for nothing in paths; the map's own path is its values'. */
static void walk_map(ProtobufCMessage *msg, const ProtobufCFieldDescriptor *f,
                     const char *path, walk_t *w)
{
    for (size_t i = 0; i < hd_pb_count(msg, f) && !w->is_changed; i++) {
        ProtobufCMessage *entry = *(ProtobufCMessage **)value_at(msg, f, i);
        const ProtobufCFieldDescriptor *v =
            protobuf_c_message_descriptor_get_field(entry->descriptor, 2);

        if (is_target(path, w)) {
            w->is_changed =
                w->variant == VARIANTS - 1 ? clear_field(msg, f) : change(entry, v, 0, w);
            if (!w->is_changed && w->variant == 0)
                w->is_changed = change(
                    entry, protobuf_c_message_descriptor_get_field(entry->descriptor, 1),
                    0, w);
            return;
        }
        if (v->type == PROTOBUF_C_TYPE_MESSAGE && hd_pb_count(entry, v) > 0)
            walk_value(*(ProtobufCMessage **)value_at(entry, v, 0), path, w);
    }
}

static void note_path(const char *path, walk_t *w)
{
    path_t *p = find_path(path);

    hd_ignore(hd_map_put(w->here, hd_str_c(p->path), p) == NULL);
    if (!w->is_refused)
        p->is_built = true;
    else if (p->why == NULL)
        p->why = strdup(w->why);
}

static void walk(ProtobufCMessage *msg, const char *prefix, walk_t *w)
{
    for (unsigned k = 0; k < msg->descriptor->n_fields && !w->is_changed; k++) {
        const ProtobufCFieldDescriptor *f = &msg->descriptor->fields[k];
        size_t n = hd_pb_count(msg, f);
        char path[PATH_MAX_BYTES];

        if (n == 0)
            continue;
        (void)snprintf(path, sizeof(path), "%s.%s", prefix, f->name);
        if (w->target == NULL)
            note_path(path, w);
        if (hd_pb_is_map(f)) {
            walk_map(msg, f, path, w);
            continue;
        }
        for (size_t i = 0; i < n && !w->is_changed; i++) {
            if (is_target(path, w)) {
                w->is_changed = change(msg, f, i, w);
                return;
            }
            if (f->type == PROTOBUF_C_TYPE_MESSAGE)
                walk_value(*(ProtobufCMessage **)value_at(msg, f, i), path, w);
        }
    }
}

/* --- one resource --- */

static ProtobufCMessage *unpack(const Pb__Any *any, hd_pb_arena_t *pb)
{
    ProtobufCMessage *msg = hd_pb_unpack_any(any, pb, NULL);

    if (msg == NULL)
        die(any->type_url, "can't be decoded");
    return msg;
}

/* Changes the <occurrence>-th place of <path> in the <variant>-th way. False: there is no
 * such place, or no such way. */
static bool try_change(hd_xds_kind_t kind, const Pb__Any *any, const char *path,
                       unsigned occurrence, unsigned variant, bool *has_place,
                       result_t *r)
{
    hd_pb_arena_t pb;
    walk_t w = {.target = path, .occurrence = occurrence, .variant = variant, .pb = &pb};
    ProtobufCMessage *msg;
    ProtobufCBinaryData bytes;

    hd_pb_arena_init(&pb, MEMORY_MAX);
    msg = unpack(any, &pb);
    walk(msg, msg->descriptor->name, &w);
    *has_place = w.at > occurrence;
    if (w.is_changed) {
        if (!hd_pb_pack(msg, &pb, &bytes))
            die(path, "can't be packed");
        build(kind, bytes.data, bytes.len, r);
    }
    hd_pb_arena_deinit(&pb);
    return w.is_changed;
}

static void try_path(hd_xds_kind_t kind, const Pb__Any *any, path_t *p,
                     const result_t *base)
{
    bool has_place = true;

    for (unsigned o = 0; has_place && p->samples_n < SAMPLES_MAX; o++, p->samples_n++) {
        for (unsigned v = 0; v < VARIANTS && has_place; v++) {
            result_t r;

            if (!try_change(kind, any, p->path, o, v, &has_place, &r))
                continue;
            if (r.is_refused || r.print != base->print) {
                p->has_effect = true;
                return;
            }
        }
    }
}

static void take_resource(const PbDiscovery__Resource *resource)
{
    const Pb__Any *any = resource->resource;
    hd_xds_kind_t kind = hd_xds_kind(hd_str_c(any->type_url));
    hd_pb_arena_t pb;
    result_t base;
    walk_t w = {.pb = &pb, .here = hd_map_create()};
    ProtobufCMessage *msg;
    size_t at = 0;
    hd_str_t key;
    void *value;

    if (kind == HD_XDS_KINDS_N)
        return;
    build(kind, any->value.data, any->value.len, &base);
    w.is_refused = base.is_refused;
    w.why = base.why;
    hd_pb_arena_init(&pb, MEMORY_MAX);
    msg = unpack(any, &pb);
    walk(msg, msg->descriptor->name, &w);
    hd_pb_arena_deinit(&pb);
    while (hd_map_next(w.here, &at, &key, &value)) {
        path_t *p = value;

        if (!p->has_effect && !base.is_refused)
            try_path(kind, any, p, &base);
    }
    hd_map_destroy(w.here);
}

/* --- files --- */

static void take_file(const char *name)
{
    static uint8_t bytes[8 << 20];
    const uint8_t *at = bytes, *end;
    FILE *f = fopen(name, "rb");

    if (f == NULL)
        die(name, "can't be opened");
    end = bytes + fread(bytes, 1, sizeof(bytes), f);
    fclose(f);
    while (at < end) {
        const PbDiscovery__DeltaDiscoveryResponse *msg;
        hd_pb_arena_t pb;
        size_t len = 0;

        for (unsigned shift = 0; at < end; shift += 7) {
            len |= (size_t)(*at & 0x7f) << shift;
            if (*at++ < 0x80)
                break;
        }
        hd_pb_arena_init(&pb, MEMORY_MAX);
        msg = hd_pb_unpack(HD_PB(pb_discovery__delta_discovery_response), at, len, &pb,
                           NULL);
        if (msg == NULL)
            die(name, "no recorded answers");
        for (size_t i = 0; i < msg->n_resources; i++)
            take_resource(msg->resources[i]);
        hd_pb_arena_deinit(&pb);
        at += len;
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int by_path(const void *a, const void *b)
{
    return strcmp((*(path_t *const *)a)->path, (*(path_t *const *)b)->path);
}

/* In the order of their names, as the loader would. */
static void load_modules(const char *dir)
{
    char *names[256], path[PATH_MAX_BYTES];
    size_t n = 0;
    DIR *d = opendir(dir);
    const struct dirent *e;
    hd_err_t err = {0};

    if (d == NULL)
        die(dir, "can't be opened");
    while ((e = readdir(d)) != NULL && n < hd_countof(names)) {
        size_t len = strlen(e->d_name);

        if (len > 3 && strcmp(e->d_name + len - 3, ".so") == 0)
            names[n++] = strdup(e->d_name);
    }
    closedir(d);
    qsort(names, n, sizeof(names[0]), by_name);
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        if (hd_module_load(hd_str_c(path), &err) != HD_OK)
            die(path, err.text);
        free(names[i]);
    }
}

static void print_paths(void)
{
    path_t **list = calloc(hd_map_count(paths) + 1, sizeof(*list));
    size_t at = 0, n = 0;
    hd_str_t key;
    void *value;

    if (list == NULL)
        die("the list", "out of memory");
    while (hd_map_next(paths, &at, &key, &value))
        list[n++] = value;
    qsort(list, n, sizeof(*list), by_path);
    for (size_t i = 0; i < n; i++) {
        if (!list[i]->has_effect && list[i]->is_built)
            printf("%s\tno effect\n", list[i]->path);
        else if (!list[i]->has_effect)
            printf("%s\trefused: %s\n", list[i]->path, list[i]->why);
    }
    free(list);
}

int main(int argc, char **argv)
{
    static const hd_state_conf_t state_conf = {0};
    static const hd_arena_conf_t arena_conf = {.bytes_max = (size_t)256 << 20,
                                               .secret_bytes_max = 1 << 20};
    hd_err_t err = {0};

    if (argc < 3) {
        fprintf(stderr, "usage: xds-effect MODULES_DIR FILE-delta.pb...\n");
        return 2;
    }
    hd_http_register();
    hd_ignore(hd_tcp_protocol() == 0);
    load_modules(argv[1]);
    state = hd_state_create(&state_conf, &err);
    arena = state != NULL ? hd_arena_create(HD_ARENA_DYNAMIC, &arena_conf, state, &err)
                          : NULL;
    member = arena != NULL ? hd_member_start(state, -1, HD_MEMBER_TOOL, &err) : NULL;
    if (member == NULL)
        die("shared memory", err.text);
    hd_member_add_arena(member, arena);
    if (hd_arena_open_writer(arena, member, &err) != HD_OK)
        die("shared memory", err.text);
    image.bytes = mmap(NULL, IMAGE_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (image.bytes == MAP_FAILED)
        die("memory", "none");
    paths = hd_map_create();
    for (int i = 2; i < argc; i++)
        take_file(argv[i]);
    print_paths();
    return 0;
}
