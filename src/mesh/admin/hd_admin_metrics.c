/* /metrics: Prometheus' text format, version 0.0.4. */
#include "hd_version.h"
#include "mesh/admin/hd_admin_int.h"

#include <math.h>
#include <stdio.h>

#define SERIES_A_SLICE 200 /* each is summed over all members */

enum { PROGRAM, LOOM, XDS, SERIES };

/* --- values --- */

/* Escaped as the format wants it; bytes that are no UTF-8 as '?'. */
static void put_label_value(hd_admin_answer_t *a, hd_str_t s)
{
    size_t from = 0;

    for (size_t i = 0; i < s.len;) {
        unsigned char c = (unsigned char)s.data[i];
        size_t len = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc2 ? 2 : 0;
        bool is_good = len > 0 && i + len <= s.len && c < 0xf5;

        for (size_t k = 1; is_good && k < len; k++)
            is_good = ((unsigned char)s.data[i + k] & 0xc0) == 0x80;
        if (is_good && c != '"' && c != '\\' && c != '\n') {
            i += len;
            continue;
        }
        hd_admin_put(a, hd_str_sub(s, from, i - from));
        if (c == '\n')
            hd_admin_put(a, HD_STR("\\n"));
        else if (c == '"' || c == '\\')
            hd_admin_print(a, "\\%c", c);
        else
            hd_admin_put(a, HD_STR("?"));
        from = ++i;
    }
    hd_admin_put(a, hd_str_sub(s, from, s.len));
}

static void put_labels(hd_admin_answer_t *a, const hd_series_view_t *v, const char *le)
{
    if (v->labels_n == 0 && le == NULL)
        return;
    hd_admin_put(a, HD_STR("{"));
    for (uint32_t i = 0; i < v->labels_n; i++) {
        hd_admin_print(a, "%s%.*s=\"", i > 0 ? "," : "", HD_STR_ARG(v->label_names[i]));
        put_label_value(a, v->label_values[i]);
        hd_admin_put(a, HD_STR("\""));
    }
    if (le != NULL)
        hd_admin_print(a, "%sle=\"%s\"", v->labels_n > 0 ? "," : "", le);
    hd_admin_put(a, HD_STR("}"));
}

static void put_histogram(hd_admin_answer_t *a, const hd_series_view_t *v)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i <= v->buckets_n; i++) {
        char le[32] = "+Inf";

        if (i < v->buckets_n)
            (void)snprintf(le, sizeof(le), "%.15g", v->bounds[i]);
        sum += v->buckets[i];
        hd_admin_print(a, "%.*s_bucket", HD_STR_ARG(v->family));
        put_labels(a, v, le);
        hd_admin_print(a, " %llu\n", (unsigned long long)sum);
    }
    hd_admin_print(a, "%.*s_sum", HD_STR_ARG(v->family));
    put_labels(a, v, NULL);
    hd_admin_print(a, " %.15g\n%.*s_count", v->sum, HD_STR_ARG(v->family));
    put_labels(a, v, NULL);
    /* the buckets' sum, so that one line never contradicts another */
    hd_admin_print(a, " %llu\n", (unsigned long long)sum);
}

static void put_family(hd_admin_answer_t *a, const hd_series_view_t *v)
{
    static const char *const types[] = {[HD_COUNTER] = "counter",
                                        [HD_HISTOGRAM] = "histogram",
                                        [HD_SERIES_GAUGE] = "gauge"};

    if (hd_str_eq(a->family, v->family))
        return;
    a->family = v->family;
    hd_admin_print(a, "# HELP %.*s %.*s\n# TYPE %.*s %s\n", HD_STR_ARG(v->family),
                   HD_STR_ARG(v->help), HD_STR_ARG(v->family), types[v->kind]);
}

static bool write_series(hd_admin_answer_t *a)
{
    hd_series_view_t v;

    for (int i = 0; i < SERIES_A_SLICE && !hd_admin_is_slice_full(a); i++) {
        if (!hd_series_next(hd_proc.state, &a->at, &v))
            return false;
        put_family(a, &v);
        if (v.kind == HD_HISTOGRAM) {
            put_histogram(a, &v);
            continue;
        }
        hd_admin_put(a, v.family);
        put_labels(a, &v, NULL);
        hd_admin_print(a, " %llu\n", (unsigned long long)v.value);
    }
    return true;
}

/* --- figures of our own --- */

static void put_head(hd_admin_answer_t *a, const char *name, const char *type,
                     const char *help)
{
    hd_admin_print(a, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_one(hd_admin_answer_t *a, const char *name, const char *type,
                    const char *help, uint64_t value)
{
    put_head(a, name, type, help);
    hd_admin_print(a, "%s %llu\n", name, (unsigned long long)value);
}

static void write_program(hd_admin_answer_t *a)
{
    put_head(a, "heddle_build_info", "gauge", "The program's version.");
    hd_admin_print(a, "heddle_build_info{version=\"%s\"} 1\n", HD_VERSION);
    if (hd_proc.settings != NULL)
        put_one(a, "heddle_workers", "gauge", "Worker processes configured.",
                hd_proc.settings->workers_n);
    put_one(a, "heddle_state_bytes", "gauge", "Shared state in use.",
            hd_state_bytes_used(hd_proc.state));
    put_one(a, "heddle_series_folded_total", "counter",
            "Label sets that were counted in an overflow series for want of room.",
            hd_series_folded(hd_proc.state));
}

static void write_loom(hd_admin_answer_t *a)
{
    static const char *const names[HD_ARENAS_MAX] = {"files", "dynamic"};
    static const struct {
        const char *name, *type, *help;
        size_t offset;
    } figures[] = {
#define F(field) offsetof(hd_arena_stats_t, field)
        {"heddle_loom_regions_live", "gauge", "Resources in force.", F(regions_live)},
        {"heddle_loom_regions_retired", "gauge",
         "Replaced resources that somebody still uses.", F(regions_retired)},
        {"heddle_loom_live_bytes", "gauge", "Memory of resources in force.",
         F(bytes_live)},
        {"heddle_loom_retired_bytes", "gauge", "Memory of retired ones.",
         F(bytes_retired)},
        {"heddle_loom_reserved_bytes", "gauge", "Memory taken from the system.",
         F(bytes_reserved)},
        {"heddle_loom_max_bytes", "gauge", "Ceiling (loom_size).", F(bytes_max)},
        {"heddle_loom_slots", "gauge", "Names.", F(slots)},
        {"heddle_loom_batches_total", "counter", "Batches published.", F(batches)},
        {"heddle_loom_published_total", "counter", "Resources put in force.",
         F(published)},
        {"heddle_loom_unchanged_total", "counter",
         "Resources built anew, found equal to those in force and dropped.",
         F(unchanged)},
#undef F
    };
    hd_arena_stats_t stats[HD_ARENAS_MAX] = {{0}};

    for (int i = 0; i < HD_ARENAS_MAX; i++)
        if (hd_proc.arenas[i] != NULL)
            hd_arena_get_stats(hd_proc.arenas[i], hd_loop_now_ns(a->req->loop),
                               &stats[i]);
    for (size_t f = 0; f < hd_countof(figures); f++) {
        put_head(a, figures[f].name, figures[f].type, figures[f].help);
        for (int i = 0; i < HD_ARENAS_MAX; i++)
            hd_admin_print(
                a, "%s{arena=\"%s\"} %llu\n", figures[f].name, names[i],
                (unsigned long long)*(uint64_t *)((char *)&stats[i] + figures[f].offset));
    }
    put_head(a, "heddle_loom_retired_oldest_seconds", "gauge",
             "Age of the oldest retired resource.");
    for (int i = 0; i < HD_ARENAS_MAX; i++)
        hd_admin_print(a, "heddle_loom_retired_oldest_seconds{arena=\"%s\"} %.3f\n",
                       names[i], (double)stats[i].retired_oldest_ms / 1000);
}

static void write_states(hd_admin_answer_t *a, const hd_xstore_t *store)
{
    static const char *const states[] = {"none", "warming", "live", "absent"};

    put_head(a, "heddle_xds_resources", "gauge", "Resources by type and state.");
    for (hd_xds_kind_t k = 0; k < HD_XDS_KINDS_N; k++) {
        uint32_t n[HD_XRES_ABSENT + 1] = {0};

        for (hd_xres_t *r = hd_xstore_next(store, k, NULL); r != NULL;
             r = hd_xstore_next(store, k, r))
            n[r->state]++;
        for (size_t s = 0; s < hd_countof(n); s++)
            hd_admin_print(a, "heddle_xds_resources{type=\"%s\",state=\"%s\"} %u\n",
                           hd_xds_short(k), states[s], n[s]);
    }
}

static void write_xds(hd_admin_answer_t *a)
{
    const hd_xstore_t *store = hd_xds_agent_store();
    hd_xstore_stats_t s;
    hd_xstream_stats_t t = {0};
    hd_xca_stats_t ca = {0};

    if (store == NULL)
        return;
    hd_xstore_get_stats(store, &s);
    if (hd_xds_agent_stream() != NULL)
        hd_xstream_get_stats(hd_xds_agent_stream(), &t);
    put_one(a, "heddle_xds_connected", "gauge", "1: the control plane answers.",
            t.is_open);
    put_one(a, "heddle_xds_streams_total", "counter", "Streams begun.", t.streams);
    put_one(a, "heddle_xds_answers_total", "counter", "Answers received.", t.answers);
    put_one(a, "heddle_xds_accepted_total", "counter", "Resources accepted.", s.accepted);
    put_one(a, "heddle_xds_refused_total", "counter", "Resources refused.", s.refused);
    put_one(a, "heddle_xds_published_total", "counter", "Updates in force.", s.published);
    put_one(a, "heddle_xds_kept_empty_total", "counter",
            "Answers of a control plane that came back with nothing.", s.kept_empty);
    put_head(a, "heddle_xds_nacks_total", "counter", "Answers refused, by type.");
    for (hd_xds_kind_t k = 0; k < HD_XDS_KINDS_N; k++)
        hd_admin_print(a, "heddle_xds_nacks_total{type=\"%s\"} %llu\n", hd_xds_short(k),
                       (unsigned long long)t.nacks_by_kind[k]);
    write_states(a, store);
    if (hd_xds_agent_ca() == NULL)
        return;
    hd_xca_get_stats(hd_xds_agent_ca(), &ca);
    put_one(a, "heddle_certificate_expiry_timestamp_seconds", "gauge",
            "End of the workload's certificate; 0: none yet.",
            (uint64_t)hd_max(ca.not_after_s, (int64_t)0));
    put_one(a, "heddle_certificates_issued_total", "counter", "Certificates obtained.",
            ca.issued);
    put_one(a, "heddle_certificates_failed_total", "counter", "Requests that failed.",
            ca.failed);
}

bool hd_admin_metrics(hd_admin_answer_t *a)
{
    switch (a->step) {
    case PROGRAM:
        write_program(a);
        break;
    case LOOM:
        write_loom(a);
        break;
    case XDS:
        write_xds(a);
        break;
    default:
        return write_series(a);
    }
    a->step++;
    return true;
}
