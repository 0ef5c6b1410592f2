#include "core/loom/hd_loom_int.h"
#include "core/os/hd_os.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATE_MAGIC 0x68656464656c73u

static void set_defaults(hd_state_conf_t *conf)
{
    if (conf->regions_max == 0)
        conf->regions_max = 131072;
    if (conf->gauges_max == 0)
        conf->gauges_max = 65536;
    if (conf->series_max == 0)
        conf->series_max = 262144;
    if (conf->cells_bytes == 0)
        conf->cells_bytes = (size_t)64 << 20;
    if (conf->labels_bytes == 0)
        conf->labels_bytes = (size_t)32 << 20;
    conf->series_max = (uint32_t)hd_align_up(conf->series_max, HD_WORD_CHUNK);
    conf->labels_bytes = hd_align_up(conf->labels_bytes, HD_LABEL_CHUNK_BYTES);
    conf->cells_bytes = hd_align_up(conf->cells_bytes, HD_PAGE);
}

static bool conf_is_sane(const hd_state_conf_t *conf)
{
    return conf->regions_max <= 1u << 24 && conf->gauges_max <= 1u << 24 &&
           conf->series_max <= 1u << 26 && conf->cells_bytes <= (size_t)1 << 34 &&
           conf->labels_bytes <= (size_t)1 << 34;
}

/* Each table starts on a page of its own, so that what isn't used costs nothing. */
static void *place(char *at, size_t *next, size_t bytes)
{
    char *p = at == NULL ? NULL : at + *next;

    *next += hd_align_up(bytes, HD_PAGE);
    return p;
}

/* With <s>->at NULL just counts. */
static size_t lay_out(hd_state_t *s)
{
    const hd_state_conf_t *c = &s->conf;
    size_t next = 0, members = HD_MEMBERS_MAX;

    s->label_chunks_max = (uint32_t)(c->labels_bytes / HD_LABEL_CHUNK_BYTES);
    s->word_chunks_max = c->series_max / HD_WORD_CHUNK;
    s->part_bytes = hd_part_layout(c);
    s->head = place(s->at, &next, sizeof(*s->head));
    s->pins =
        place(s->at, &next, members * HD_ARENAS_MAX * c->regions_max * sizeof(*s->pins));
    s->holds =
        place(s->at, &next, members * HD_ARENAS_MAX * c->regions_max * sizeof(*s->holds));
    s->gauges = place(s->at, &next, members * c->gauges_max * sizeof(*s->gauges));
    s->totals = place(s->at, &next, c->gauges_max * sizeof(*s->totals));
    s->total_groups =
        place(s->at, &next,
              (c->gauges_max / HD_GAUGE_GROUP / 64 + 1) * sizeof(*s->total_groups));
    s->words = place(s->at, &next, members * c->series_max * sizeof(*s->words));
    for (unsigned i = 0; i < HD_SERIES_TABLES; i++)
        s->tables[i] =
            place(s->at, &next, HD_SERIES_TABLE_CELLS(i) * sizeof(*s->tables[i]));
    s->label_chunks = place(s->at, &next, s->label_chunks_max * sizeof(*s->label_chunks));
    s->word_chunks = place(s->at, &next, s->word_chunks_max * sizeof(*s->word_chunks));
    s->labels = place(s->at, &next, c->labels_bytes);
    for (unsigned i = 0; i < HD_ARENAS_MAX; i++)
        s->parts[i] = place(s->at, &next, s->part_bytes);
    return next;
}

hd_state_t *hd_state_create(const hd_state_conf_t *conf, hd_err_t *err)
{
    hd_state_t *s = calloc(1, sizeof(*s));

    hd_bug_on(s == NULL);
    if (conf != NULL)
        s->conf = *conf;
    set_defaults(&s->conf);
    if (!conf_is_sane(&s->conf)) {
        hd_ignore(hd_err_set(err, HD_E_CONF, "the shared state's limits are too large"));
        free(s);
        return NULL;
    }
    s->bytes = lay_out(s);
    s->fd = hd_os_memfd("heddle-state", s->bytes);
    if (s->fd >= 0)
        s->at = hd_os_map(s->fd, NULL, s->bytes, true);
    if (s->at == NULL) {
        hd_ignore(hd_err_set_sys(err, errno, "shared state of %zu MB", s->bytes >> 20));
        if (s->fd >= 0)
            close(s->fd);
        free(s);
        return NULL;
    }
    (void)lay_out(s);
    s->head->magic = STATE_MAGIC;
    s->head->layout_hash = hd_state_layout_hash(s);
    for (unsigned i = 0; i < HD_ARENAS_MAX; i++)
        atomic_init(&s->head->arenas[i].seq, 1);
    atomic_init(&s->word_chunks[0].used, 2); /* word 0 is nobody's, see hd_series.c */
    return s;
}

hd_state_t *hd_state_open_other(int fd, hd_err_t *err)
{
    hd_state_t *s = calloc(1, sizeof(*s));
    struct stat st;

    hd_bug_on(s == NULL);
    set_defaults(&s->conf);
    s->bytes = lay_out(s);
    s->fd = fd;
    if (fstat(fd, &st) == 0 && (size_t)st.st_size == s->bytes)
        s->at = hd_os_map(fd, NULL, s->bytes, false);
    if (s->at != NULL)
        (void)lay_out(s);
    if (s->at != NULL && s->head->magic == STATE_MAGIC &&
        s->head->layout_hash == hd_state_layout_hash(s))
        return s;
    hd_ignore(hd_err_set(err, HD_E_CONF, "it is laid out in another way"));
    if (s->at != NULL)
        hd_os_unmap(s->at, s->bytes);
    hd_ignore(close(fd)); /* only looked at */
    free(s);
    return NULL;
}

int hd_state_fd(const hd_state_t *s)
{
    return s->fd;
}

void hd_state_destroy(hd_state_t *s)
{
    hd_os_unmap(s->at, s->bytes);
    close(s->fd);
    free(s);
}

uint64_t hd_state_layout_hash(const hd_state_t *s)
{
    uint64_t facts[] = {
        HD_STATE_LAYOUT,      HD_MEMBERS_MAX,       HD_ARENAS_MAX,
        s->conf.regions_max,  s->conf.gauges_max,   s->conf.series_max,
        s->conf.cells_bytes,  s->conf.labels_bytes, sizeof(hd_state_head_t),
        HD_LABEL_CHUNK_BYTES, HD_WORD_CHUNK,        s->bytes,
    };

    return hd_hash64(facts, sizeof(facts), HD_STATE_LAYOUT);
}

size_t hd_state_bytes_used(const hd_state_t *s)
{
    return hd_os_file_bytes(s->fd);
}
