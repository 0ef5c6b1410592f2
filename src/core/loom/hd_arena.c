#include "core/loom/hd_arena.h"
#include "core/loom/hd_arena_int.h"
#include "core/os/hd_clock.h"
#include "core/os/hd_os.h"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static void lay_out(hd_arena_t *a, size_t bytes_max)
{
    size_t slots = hd_align_up(a->regions_max * sizeof(hd_slot_t), HD_PAGE);
    size_t regions = hd_align_up(a->regions_max * sizeof(hd_region_entry_t), HD_PAGE);

    a->data_at = HD_PAGE + slots + regions;
    a->bytes = a->data_at + hd_align_up(bytes_max, HD_PAGE);
    a->head = (hd_arena_head_t *)a->base;
    a->slots = (hd_slot_t *)(a->base + HD_PAGE);
    a->regions = (hd_region_entry_t *)(a->base + HD_PAGE + slots);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static bool make_files(hd_arena_t *a)
{
    a->fd = hd_os_memfd("heddle-loom", a->bytes);
    a->secret_fd = hd_os_memfd("heddle-secret", a->secret_bytes);
    if (a->fd < 0 || a->secret_fd < 0)
        return false;
    a->ro_fd = hd_os_memfd_reopen_ro(a->fd);
    a->secret_ro_fd = hd_os_memfd_reopen_ro(a->secret_fd);
    return a->ro_fd >= 0 && a->secret_ro_fd >= 0;
}

hd_arena_t *hd_arena_create(hd_arena_id_t id, const hd_arena_conf_t *conf,
                            hd_state_t *state, hd_err_t *err)
{
    size_t bytes_max = conf == NULL ? 0 : conf->bytes_max;
    size_t secret_max = conf == NULL ? 0 : conf->secret_bytes_max;
    uint64_t base = conf == NULL ? 0 : conf->base;
    hd_arena_t *a;

    if (bytes_max > HD_ARENA_BYTES_MAX || secret_max > HD_ARENA_BYTES_MAX) {
        hd_ignore(hd_err_set(err, HD_E_CONF, "an arena can have %zu GB at most",
                             HD_ARENA_BYTES_MAX >> 30));
        return NULL;
    }
    a = calloc(1, sizeof(*a));
    hd_bug_on(a == NULL || id >= HD_ARENAS_MAX);
    a->id = id;
    a->state = state;
    a->shared = &state->head->arenas[id];
    a->regions_max = state->conf.regions_max;
    a->base = (char *)(uintptr_t)(base != 0 ? base : HD_ARENA_BASE + id * HD_ARENA_SPAN);
    a->secret_base = a->base + HD_ARENA_SECRET_AT;
    a->secret_bytes =
        hd_align_up(secret_max != 0 ? secret_max : (size_t)64 << 20, HD_PAGE);
    a->fd = a->ro_fd = a->secret_fd = a->secret_ro_fd = -1;
    lay_out(a, bytes_max != 0 ? bytes_max : (size_t)1 << 30);
    if (!make_files(a)) {
        hd_ignore(hd_err_set_sys(err, errno, "memory file for an arena of %zu MB",
                                 a->bytes >> 20));
        hd_arena_destroy(a);
        return NULL;
    }
    return a;
}

static hd_rc_t map_files(hd_arena_t *a, bool writable, hd_err_t *err)
{
    int fd = writable ? a->fd : a->ro_fd;
    int secret_fd = writable ? a->secret_fd : a->secret_ro_fd;

    if (hd_os_map(fd, a->base, a->bytes, writable) == NULL)
        return hd_err_set_sys(err, errno, "mapping an arena at %p", (void *)a->base);
    if (hd_os_map(secret_fd, a->secret_base, a->secret_bytes, writable) == NULL) {
        int saved = errno;

        hd_os_unmap(a->base, a->bytes);
        return hd_err_set_sys(err, saved, "mapping secrets at %p",
                              (void *)a->secret_base);
    }
    hd_os_dont_dump(a->secret_base, a->secret_bytes);
    a->mapped = writable ? HD_MAPPED_RW : HD_MAPPED_RO;
    return HD_OK;
}

/* Reserves what <count> items of a table at <table> take; pages once reserved stay. */
static bool reserve_table(hd_arena_t *a, const void *table, size_t *reserved,
                          size_t bytes)
{
    bytes = hd_align_up(bytes, HD_PAGE);
    if (bytes <= *reserved)
        return true;
    hd_loom_step();
    if (hd_os_reserve(a->fd, hd_arena_offset(a, table) + *reserved, bytes - *reserved) !=
        0)
        return false;
    *reserved = bytes;
    return true;
}

bool hd_arena_reserve_slots(hd_arena_t *a, uint32_t n)
{
    return n <= a->regions_max &&
           reserve_table(a, a->slots, &a->slots_reserved, n * sizeof(hd_slot_t));
}

bool hd_arena_reserve_regions(hd_arena_t *a, uint32_t n)
{
    return n <= a->regions_max && reserve_table(a, a->regions, &a->regions_reserved,
                                                n * sizeof(hd_region_entry_t));
}

static hd_rc_t init_head(hd_arena_t *a, hd_err_t *err)
{
    if (hd_os_reserve(a->fd, 0, HD_PAGE) != 0)
        return hd_err_set_sys(err, errno, "an arena's first page");
    if (hd_load(&a->head->magic, relaxed) == HD_ARENA_MAGIC)
        return HD_OK;
    hd_os_random(&a->head->seed, sizeof(a->head->seed));
    hd_store(&a->head->magic, HD_ARENA_MAGIC, release);
    return HD_OK;
}

/* From slots and region heads: what is in use, what no slot reaches, what is free. */
static hd_rc_t rebuild(hd_arena_t *a, hd_err_t *err)
{
    uint64_t now_ns = hd_clock_mono_ns();
    uint64_t seq = hd_load(&a->shared->seq, relaxed) + 1;

    if (!hd_slots_mark(a, err) || !hd_regions_mark(a, err))
        return HD_ERROR;
    hd_space_finish(&a->data, false);
    hd_space_finish(&a->secret, true);
    hd_regions_retire_lost(a, seq, now_ns);
    hd_store(&a->shared->seq, seq, seq_cst);
    hd_regions_count(a);
    for (unsigned i = 0; i < HD_RES_TYPES_N; i++) /* one may have died before it did */
        hd_bump(&a->head->arrived[i], 1, release);
    return hd_slots_reindex(a, now_ns, err) ? HD_OK : HD_ERROR;
}

void hd_arena_close_writer(hd_arena_t *a)
{
    if (a->writer == NULL)
        return;
    hd_part_close(a->writer->parts[a->id]);
    a->writer->parts[a->id] = NULL;
    a->writer->arenas[a->id] = NULL;
    a->writer = NULL;
    hd_slots_close(a);
    hd_space_deinit(&a->data);
    hd_space_deinit(&a->secret);
    free(a->free_entries);
    free(a->retired);
    a->free_entries = NULL;
    a->retired = NULL;
    a->free_entries_n = a->free_entries_room = a->retired_n = a->retired_room = 0;
    a->slots_reserved = a->regions_reserved = 0;
}

hd_rc_t hd_arena_open_writer(hd_arena_t *a, hd_member_t *m, hd_err_t *err)
{
    if (a->mapped == HD_MAPPED_RO)
        return hd_err_set(err, HD_E_INTERNAL, "the arena's writer must open it first");
    if (a->mapped == HD_NOT_MAPPED && map_files(a, true, err) != HD_OK)
        return HD_ERROR;
    if (init_head(a, err) != HD_OK)
        return HD_ERROR;
    hd_arena_close_writer(a); /* another one in this process */
    hd_space_init(&a->data, a->base + a->data_at, a->bytes - a->data_at, a->fd,
                  a->data_at);
    hd_space_init(&a->secret, a->secret_base, a->secret_bytes, a->secret_fd, 0);
    hd_slots_open(a);
    a->writer = m;
    m->parts[a->id] = hd_part_open(a->state, (int)a->id, err);
    if (m->parts[a->id] == NULL || rebuild(a, err) != HD_OK) {
        hd_arena_close_writer(a);
        return HD_ERROR;
    }
    hd_member_add_arena(m, a);
    return HD_OK;
}

hd_rc_t hd_arena_open_reader(hd_arena_t *a, hd_member_t *m, hd_err_t *err)
{
    if (a->mapped == HD_NOT_MAPPED) {
        if (map_files(a, false, err) != HD_OK)
            return HD_ERROR;
        close_fd(&a->fd);
        close_fd(&a->ro_fd);
        close_fd(&a->secret_fd);
        close_fd(&a->secret_ro_fd);
    }
    hd_member_add_arena(m, a);
    return HD_OK;
}

void hd_member_add_arena(hd_member_t *m, hd_arena_t *a)
{
    hd_assert(!m->is_awake || m->arenas[a->id] == a); /* it has announced nothing here */
    m->arenas[a->id] = a;
}

void hd_arena_destroy(hd_arena_t *a)
{
    if (a == NULL)
        return;
    hd_arena_close_writer(a);
    if (a->mapped != HD_NOT_MAPPED) {
        hd_os_unmap(a->base, a->bytes);
        hd_os_unmap(a->secret_base, a->secret_bytes);
    }
    close_fd(&a->fd);
    close_fd(&a->ro_fd);
    close_fd(&a->secret_fd);
    close_fd(&a->secret_ro_fd);
    free(a);
}

void hd_arena_get_stats(const hd_arena_t *a, uint64_t now_ns, hd_arena_stats_t *stats)
{
    hd_arena_shared_t *s = a->shared;
    uint64_t since = hd_load(&s->retired_since_ns, relaxed);

    *stats = (hd_arena_stats_t){
        .regions_live = hd_load(&s->regions_live, relaxed),
        .regions_retired = hd_load(&s->regions_retired, relaxed),
        .bytes_live = hd_load(&s->bytes_live, relaxed),
        .bytes_retired = hd_load(&s->bytes_retired, relaxed),
        .bytes_reserved = hd_load(&s->bytes_reserved, relaxed),
        .bytes_max = a->bytes - a->data_at,
        .batches = hd_load(&s->batches, relaxed),
        .slots = hd_load(&s->slots, relaxed),
        .published = hd_load(&s->published, relaxed),
        .unchanged = hd_load(&s->unchanged, relaxed),
    };
    if (since != 0 && now_ns > since)
        stats->retired_oldest_ms = (now_ns - since) / 1000000;
}
