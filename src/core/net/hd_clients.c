#include "core/net/hd_clients.h"
#include "core/loom/hd_member.h"

static hd_member_t *member; /* NULL: nothing is counted */
static hd_series_t accepted, requests, reused, states[HD_CLIENTS_STATES];
static uint64_t own[HD_CLIENTS_STATES]; /* this process's share */

static const char *const labels[] = {"state", NULL};

static const hd_family_t families[] = {
    {.name = "heddle_client_connections_accepted_total",
     .help = "Connections of clients that were accepted.",
     .kind = HD_COUNTER},
    {.name = "heddle_client_requests_total",
     .help = "Requests of clients.",
     .kind = HD_COUNTER},
    {.name = "heddle_clients",
     .help = "Connections that are open (active) and in which a head is read (reading); "
             "requests that are answered (writing).",
     .kind = HD_SERIES_GAUGE,
     .labels = labels},
    {.name = "heddle_connections_reused_total",
     .help = "Idle connections that were closed for new ones, worker_connections or "
             "files being few.",
     .kind = HD_COUNTER},
};

void hd_clients_start(hd_member_t *m)
{
    static const char *const names[] = {"active", "reading", "writing"};

    member = m;
    accepted = hd_series_enter(m, hd_family_enter(m, &families[0]), NULL);
    requests = hd_series_enter(m, hd_family_enter(m, &families[1]), NULL);
    reused = hd_series_enter(m, hd_family_enter(m, &families[3]), NULL);
    for (int i = 0; i < HD_CLIENTS_STATES; i++) {
        hd_str_t value = hd_str_c(names[i]);

        states[i] = hd_series_enter(m, hd_family_enter(m, &families[2]), &value);
        hd_series_set(m, states[i], own[i]);
    }
}

void hd_clients_enter(hd_clients_state_t state)
{
    own[state]++;
    if (member != NULL)
        hd_series_set(member, states[state], own[state]);
}

void hd_clients_leave(hd_clients_state_t state)
{
    own[state]--;
    if (member != NULL)
        hd_series_set(member, states[state], own[state]);
}

void hd_clients_accepted(void)
{
    hd_clients_enter(HD_CLIENTS_ACTIVE);
    if (member != NULL)
        hd_counter_add(member, accepted, 1);
}

void hd_clients_requested(void)
{
    hd_clients_enter(HD_CLIENTS_WRITING);
    if (member != NULL)
        hd_counter_add(member, requests, 1);
}

void hd_clients_reused(uint64_t n)
{
    if (member != NULL)
        hd_counter_add(member, reused, n);
}

void hd_clients_sum(hd_clients_t *sum)
{
    *sum = (hd_clients_t){0};
    if (member == NULL)
        return;
    sum->accepted = hd_series_sum(hd_member_state(member), accepted);
    sum->requests = hd_series_sum(hd_member_state(member), requests);
    for (int i = 0; i < HD_CLIENTS_STATES; i++)
        sum->now[i] = hd_series_sum(hd_member_state(member), states[i]);
}

uint64_t hd_clients_waiting(const hd_clients_t *c)
{
    uint64_t busy = c->now[HD_CLIENTS_READING] + c->now[HD_CLIENTS_WRITING];

    return c->now[HD_CLIENTS_ACTIVE] > busy ? c->now[HD_CLIENTS_ACTIVE] - busy : 0;
}
