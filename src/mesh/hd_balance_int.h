/* hd_balance_int: what the balancer's files share: a worker's view of a cluster's
 * endpoints, made anew when cluster, endpoints or someone's health change, so that a
 * choice looks at few of them.
 *
 *   hd_balance.c         the question and the answer; priorities, nginx's and Envoy's way
 *   hd_balance_latency.c peak EWMA: how long an endpoint takes
 *   hd_balance_subset.c  which endpoints a request's labels lead to
 *   hd_balance_view.c    versions, health, lists
 *   hd_balance_list.c    the policies: who of a list is next
 *   hd_balance_zones.c   zone-aware routing: which locality is next
 */
#pragma once
#include "core/loom/hd_companion.h"
#include "mesh/hd_edf.h"
#include "mesh/hd_endpoint_state.h"
#include "mesh/hd_mesh_cluster.h"
#include "mesh/hd_priorities.h"

#define HD_LB_NOBODY UINT32_MAX

/* What some policies need of a list beside its turn. */
typedef struct {
    uint64_t *sums; /* of weights up to each; NULL: equal, or not asked for */
    /* round robin: nginx's smooth order, if its period is short; else by edf */
    uint32_t *sequence;
    uint32_t period;
    int64_t *current; /* nginx's least_conn: running weights among equals */
    hd_edf_t edf;     /* n 0: not used */
} hd_lb_order_t;

/* Endpoints to choose from, and where the policy stands. */
typedef struct {
    const uint32_t *at; /* indexes into the endpoints; may be another list's, too */
    uint32_t n;
    bool is_equal : 1; /* all weights are */
    uint32_t turn : 31;
    uint64_t total;       /* of weights */
    hd_lb_order_t *order; /* NULL: as if it were all 0 */
} hd_lb_list_t;

typedef enum { HD_LB_HEALTHY, HD_LB_DEGRADED, HD_LB_ALL, HD_LB_LISTS_N } hd_lb_which_t;

/* Of a priority whose localities matter; in v->lists. */
typedef struct {
    uint32_t n, own;    /* localities; which is ours, UINT32_MAX: none */
    bool is_direct;     /* all to ours */
    uint32_t own_share; /* else so many of 10,000 */
    uint64_t *residual; /* what each of the others may take of the rest, summed up */
    hd_lb_list_t *lists[HD_LB_ALL]; /* by locality */
} hd_lb_zones_t;

/* A list once more, by locality. */
typedef struct {
    hd_edf_t turns; /* n 0: none has a weight */
    hd_lb_list_t *lists;
    double *weights;
} hd_lb_localities_t;

/* Those of one priority. */
typedef struct {
    uint32_t rank; /* hd_endpoint_rank */
    hd_lb_list_t lists[HD_LB_LISTS_N];
    hd_lb_localities_t *localities; /* of HEALTHY and DEGRADED; NULL: not by locality */
    const hd_table_t *table;
    hd_lb_zones_t *zones; /* NULL: none */
} hd_lb_level_t;

/* All endpoints, or those of a subset. */
typedef struct {
    const uint32_t *members;
    hd_lb_level_t *levels;
    hd_priority_t *priorities;
    uint32_t members_n, levels_n;
    uint32_t choices; /* so far: new lists don't begin with the same one each time */
} hd_lb_group_t;

typedef struct hd_lb_subset_s {
    struct hd_lb_subset_s *next;
    const hd_kv_t *labels;
    uint32_t labels_n;
    hd_lb_group_t group;
} hd_lb_subset_t;

/* Of conf->zones: the cluster that we belong to, as it was looked at in this turn. */
typedef struct {
    const hd_cluster_t *cluster;
    const hd_endpoints_t *eps;
    const hd_region_t *region;
    uint64_t version;
    uint32_t seq;
} hd_lb_local_t;

/* By hd_pick_t.sticky: endpoints + 1. */
typedef struct {
    uint32_t mask, at[];
} hd_lb_routes_t;

/* What few views need; in the view's memory. */
typedef struct {
    hd_lb_local_t local;
    hd_lb_routes_t *routes; /* NULL: not yet */
    hd_lb_subset_t *subsets;
} hd_lb_more_t;

/* Many of these are held, so what few clusters need lies elsewhere. */
typedef struct hd_lb_view_s {
    hd_link_t used; /* among the views of this thread, the one used last in front */
    uint64_t used_ns;
    struct hd_lb_head_s *head; /* whose it is */
    /* what it is made of; versions, since what they name may be gone between turns */
    const hd_region_t *cluster_region, *endpoints_region;
    uint64_t cluster_version, endpoints_version;
    const hd_cluster_t *cluster;
    const hd_endpoints_t *eps;
    const hd_mesh_cluster_t *conf;
    uint64_t old_at_ns;      /* when the lists are */
    hd_pool_t *pool, *lists; /* the view's and the lists' memory; NULL: none needed */
    hd_lb_more_t *more;      /* NULL: nothing of it is needed */
    hd_lb_group_t whole;
    hd_lb_level_t level; /* of the whole, as long as there is one */
    hd_priority_t priority;
    uint64_t random;
    uint32_t health_seq;
    uint32_t start;   /* where this worker begins */
    uint32_t steps;   /* of the last choice: endpoints, points looked at; for tests */
    uint8_t health[]; /* of each: hd_endpoint_health_t, or HD_LB_OUT */
} hd_lb_view_t;

#define HD_LB_RANKS_MAX 385 /* 128 priorities, and nginx's backups behind 256 */
#define HD_LB_OUT 255       /* down, or out of reach: as if it weren't there */

/* --- hd_balance_view.c --- */
/* Memory that lasts as long as the view; as long as its lists. */
hd_pool_t *hd_lb_pool(hd_lb_view_t *v);
hd_lb_more_t *hd_lb_more(hd_lb_view_t *v); /* made at need */
hd_pool_t *hd_lb_lists_pool(hd_lb_view_t *v);
/* The view of the versions that <p> has pinned; good until the next call. What wasn't
 * asked for in a while is let go, and made anew when it is. */
hd_lb_view_t *hd_lb_view(hd_member_t *m, const hd_pick_t *p, uint64_t now_ns,
                         hd_err_t *err);
/* The endpoints that have these labels; NULL: nobody has. */
hd_lb_group_t *hd_lb_group(hd_lb_view_t *v, const hd_kv_t *labels, uint32_t n,
                           uint64_t now_ns);
uint64_t hd_lb_random(hd_lb_view_t *v);
/* Those <n> of the endpoints that <at> names and <which> means, ready to be chosen from.
 */
void hd_lb_fill_list(hd_lb_view_t *v, const hd_lb_group_t *g, const uint32_t *at,
                     uint32_t n, hd_lb_which_t which, hd_lb_list_t *list,
                     uint64_t now_ns);
/* Whom hd_pick_t.sticky means; HD_LB_NOBODY. */
uint32_t hd_lb_find_route(hd_lb_view_t *v, uint64_t route);
/* The transport of an endpoint (NULL: of an original destination); NULL: the cluster's.
 */
const hd_transport_match_t *hd_lb_transport(const hd_cluster_t *c,
                                            const hd_endpoint_t *e);

/* --- hd_balance_subset.c --- */
/* Those that the request's labels lead to, fallbacks included; NULL: nobody. */
hd_lb_group_t *hd_lb_subset(hd_lb_view_t *v, const hd_kv_t *labels, uint32_t n,
                            uint64_t now_ns);

/* --- hd_balance_zones.c, where conf->zones is there --- */
/* Looks at the cluster that we belong to; true: it has changed since. */
bool hd_lb_zones_look(hd_member_t *m, hd_lb_view_t *v);
/* Sets level->zones where zones matter now; <at>: the level's <n> endpoints. */
void hd_lb_zones_fill(hd_lb_view_t *v, const hd_lb_group_t *g, hd_lb_level_t *level,
                      const uint32_t *at, uint32_t n, uint64_t now_ns);
/* Whom to choose from this time; level->zones is there. */
hd_lb_list_t *hd_lb_zones_choose(hd_lb_view_t *v, hd_lb_level_t *level,
                                 hd_lb_which_t which);

/* --- hd_balance_latency.c --- */
/* A request took so long; the endpoint has counts. */
void hd_lb_observe(const hd_mesh_cluster_t *conf, const hd_endpoint_t *e,
                   uint64_t took_ns, uint64_t now_ns);
double hd_lb_cost(const hd_lb_view_t *v, const hd_endpoint_t *e, uint32_t requests,
                  uint64_t now_ns);

/* --- hd_balance_list.c --- */
/* What the cluster's policy needs of it; <start>: where round robin begins. */
void hd_lb_list_prepare(hd_lb_view_t *v, hd_lb_list_t *list, uint32_t start,
                        uint64_t now_ns);
/* The policy's next choice: an index into the endpoints. */
uint32_t hd_lb_list_next(hd_member_t *m, hd_lb_view_t *v, hd_lb_list_t *list,
                         uint64_t now_ns);
/* By a number below its total: who has it, when each holds as many as its weight. */
uint32_t hd_lb_list_at(hd_lb_view_t *v, const hd_lb_list_t *list, uint64_t number);
