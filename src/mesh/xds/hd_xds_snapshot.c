#include "mesh/xds/hd_xds_snapshot.h"
#include "proto/hd_pb.h"
#include "xds/discovery.pb-c.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX ((size_t)512 << 20)
#define MEMORY_MAX ((size_t)1 << 30)

/* --- writing --- */

static bool add_kind(const hd_xstore_t *s, hd_xds_kind_t kind, hd_pool_t *pool,
                     PbDiscovery__DeltaDiscoveryResponse *msg)
{
    size_t n = 0;

    for (hd_xres_t *r = hd_xstore_next(s, kind, NULL); r != NULL;
         r = hd_xstore_next(s, kind, r))
        n++;
    msg->resources = hd_pool_calloc(pool, (n + 1) * sizeof(*msg->resources));
    msg->type_url = hd_xds_url(kind);
    for (hd_xres_t *r = hd_xstore_next(s, kind, NULL); r != NULL;
         r = hd_xstore_next(s, kind, r)) {
        PbDiscovery__Resource *to;

        if (r->bytes.len == 0)
            continue;
        to = hd_pool_calloc(pool, sizeof(*to));
        pb_discovery__resource__init(to);
        to->name = r->name.data;
        to->version = r->version.data;
        to->resource = hd_pool_calloc(pool, sizeof(*to->resource));
        pb__any__init(to->resource);
        to->resource->type_url = hd_xds_url(kind);
        to->resource->value =
            (ProtobufCBinaryData){r->bytes.len, (uint8_t *)r->bytes.data};
        msg->resources[msg->n_resources++] = to;
    }
    return msg->n_resources > 0;
}

static bool write_message(FILE *f, const PbDiscovery__DeltaDiscoveryResponse *msg)
{
    ProtobufCBinaryData bytes;
    hd_pb_arena_t pb;
    bool is_good;

    hd_pb_arena_init(&pb, MEMORY_MAX);
    is_good = hd_pb_pack(msg, &pb, &bytes);
    for (size_t len = bytes.len; is_good; len >>= 7) {
        is_good = fputc((int)((len & 0x7f) | (len > 0x7f ? 0x80 : 0)), f) != EOF;
        if (len <= 0x7f)
            break;
    }
    is_good = is_good && fwrite(bytes.data, 1, bytes.len, f) == bytes.len;
    hd_pb_arena_deinit(&pb);
    return is_good;
}

static bool write_all(const hd_xstore_t *s, FILE *f)
{
    bool is_good = true;

    for (hd_xds_kind_t k = 0; is_good && k < HD_XDS_KINDS_N; k++) {
        PbDiscovery__DeltaDiscoveryResponse msg;
        hd_pool_t *pool;

        if (k == HD_XDS_SECRET)
            continue;
        pool = hd_pool_create(0);
        pb_discovery__delta_discovery_response__init(&msg);
        if (add_kind(s, k, pool, &msg))
            is_good = write_message(f, &msg);
        hd_pool_destroy(pool);
    }
    return is_good;
}

hd_rc_t hd_xds_snapshot_write(const hd_xstore_t *s, hd_str_t path, hd_err_t *err)
{
    hd_pool_t *pool = hd_pool_create(0);
    const char *to = hd_str_to_c(pool, path);
    const char *temp = hd_str_printf(pool, "%s.new", to).data;
    int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    FILE *f = fd >= 0 ? fdopen(fd, "wb") : NULL;
    hd_rc_t rc = HD_OK;
    bool is_good;

    if (f == NULL) {
        rc = hd_err_set_sys(err, errno, "open() \"%s\" failed", temp);
        if (fd >= 0)
            hd_ignore(close(fd));
        hd_pool_destroy(pool);
        return rc;
    }
    is_good = write_all(s, f);
    is_good = fclose(f) == 0 && is_good;
    if (!is_good || rename(temp, to) != 0) {
        rc = hd_err_set_sys(err, errno, "writing \"%s\" failed", to);
        hd_ignore(unlink(temp));
    }
    hd_pool_destroy(pool);
    return rc;
}

/* --- reading --- */

static bool take_length(const uint8_t **at, const uint8_t *end, size_t *len)
{
    *len = 0;
    for (unsigned shift = 0; *at < end && shift < 35; shift += 7) {
        uint8_t b = *(*at)++;

        *len |= (size_t)(b & 0x7f) << shift;
        if (b < 0x80)
            return *len <= (size_t)(end - *at);
    }
    return false;
}

static hd_rc_t give(hd_xstore_t *s, const uint8_t *bytes, size_t len, hd_err_t *err)
{
    const PbDiscovery__DeltaDiscoveryResponse *msg;
    hd_pb_arena_t pb;
    hd_xds_kind_t kind;
    hd_xupdate_t *u;

    hd_pb_arena_init(&pb, MEMORY_MAX);
    msg = hd_pb_unpack(HD_PB(pb_discovery__delta_discovery_response), bytes, len, &pb,
                       NULL);
    kind = msg != NULL ? hd_xds_kind(hd_str_c(msg->type_url)) : HD_XDS_KINDS_N;
    if (kind == HD_XDS_KINDS_N) {
        hd_pb_arena_deinit(&pb);
        return hd_err_set(err, HD_E_RESOURCE, "it holds something else than xDS answers");
    }
    u = hd_xupdate_create(kind, msg->n_resources, 0);
    for (size_t i = 0; i < msg->n_resources; i++) {
        const PbDiscovery__Resource *r = msg->resources[i];

        if (r->resource == NULL)
            continue;
        u->items[u->items_n++] = (hd_xitem_t){
            .name = hd_str_dup(u->pool, hd_str_c(r->name)),
            .version = hd_str_dup(u->pool, hd_str_c(r->version)),
            .bytes = hd_str_dup(u->pool, hd_str_n((char *)r->resource->value.data,
                                                  r->resource->value.len))};
    }
    hd_xstore_give(s, u);
    hd_pb_arena_deinit(&pb);
    return HD_OK;
}

static hd_rc_t give_all(hd_xstore_t *s, const uint8_t *at, const uint8_t *end,
                        hd_err_t *err)
{
    size_t len;

    while (at < end) {
        if (!take_length(&at, end, &len))
            return hd_err_set(err, HD_E_RESOURCE, "it is cut short");
        if (give(s, at, len, err) != HD_OK)
            return HD_ERROR;
        at += len;
    }
    return HD_OK;
}

hd_rc_t hd_xds_snapshot_read(hd_xstore_t *s, hd_str_t path, hd_err_t *err)
{
    char *name = strndup(path.data, path.len);
    FILE *f = name != NULL ? fopen(name, "rbe") : NULL;
    uint8_t *bytes;
    struct stat st;
    size_t n;
    hd_rc_t rc;

    free(name);
    if (f == NULL)
        return errno == ENOENT ? HD_DECLINED
                               : hd_err_set_sys(err, errno, "open() failed");
    if (fstat(fileno(f), &st) != 0 || (size_t)st.st_size > FILE_MAX) {
        hd_ignore(fclose(f));
        return hd_err_set(err, HD_E_LIMIT, "it is over %zu MB", FILE_MAX >> 20);
    }
    bytes = malloc((size_t)st.st_size + 1);
    hd_bug_on(bytes == NULL);
    n = fread(bytes, 1, (size_t)st.st_size, f);
    hd_ignore(fclose(f)); /* was only read */
    rc = give_all(s, bytes, bytes + n, err);
    free(bytes);
    return rc;
}
