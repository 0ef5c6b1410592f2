#include "hd_program.h"
#include "control/hd_control.h"
#include "core/conf/hd_conf_cluster.h"
#include "core/conf/hd_conf_resolver.h"
#include "core/conf/hd_conf_ssl.h"
#include "core/net/hd_tls.h"
#include "core/proc/hd_conf_overload.h"
#include "core/proc/hd_files.h"
#include "http/hd_conf_http.h"
#include "http/hd_http.h"
#include "http/hd_upool.h"
#include "mesh/admin/hd_admin.h"
#include "mesh/hd_balance.h"
#include "mesh/hd_breakers.h"
#include "mesh/hd_conf_guard.h"
#include "mesh/hd_conf_upstream.h"
#include "mesh/hd_endpoint_state.h"
#include "mesh/hd_health.h"
#include "mesh/hd_named.h"
#include "mesh/hd_ocsp_fetch.h"
#include "mesh/hd_resolving.h"
#include "mesh/hd_stapling.h"
#include "mesh/xds/hd_xds_agent.h"
#include "stream/hd_conf_stream.h"
#include "stream/hd_tcp.h"
#include "stream/hd_udp.h"

/* Directives whose block is code, whoever reads it. */
static const char *const raw_blocks[] = {"*_by_lua_block", NULL};

/* --- upstream conns in a process that serves --- */

/* A ring: something was published, or another worker asks for an idle conn's place. */
static void refresh_pools(hd_proc_t *p)
{
    hd_upool_refresh(p->member);
    hd_tcp_refresh();
    hd_upool_yield(p->member);
}

static void ask_all(void)
{
    hd_process_ring(&hd_proc);
}

/* Idle upstream conns are nothing to wait for. */
static bool is_idle(hd_proc_t *p)
{
    if (hd_requests_active() > 0 || hd_tcp_sessions() > 0)
        return false;
    hd_upool_close_all(p->loop);
    return true;
}

static void close_pools(hd_proc_t *p)
{
    hd_upool_close_all(p->loop);
}

static const hd_process_hooks_t serving = {
    .name = "upstreams",
    .kinds = 1u << HD_PROC_WORKER | 1u << HD_PROC_AGENT | 1u << HD_PROC_CONTROL,
    .on_batch = refresh_pools,
    .is_idle = is_idle,
    .on_stop = close_pools,
};

static void write_key_log(hd_str_t path, hd_str_t line)
{
    hd_file_t *f = hd_file_get(path);

    if (f != NULL)
        hd_file_write(f, line, false);
}

/* The order is the order of module numbers. */
void hd_program_register(void)
{
    hd_parse_set_raw_blocks(raw_blocks);
    hd_process_register();
    hd_overload_register();
    hd_balancer = &hd_mesh_balancer;
    hd_upool_ask = ask_all;
    hd_conf_cluster = &hd_mesh_conf_cluster;
    hd_http_register();
    hd_ignore(hd_tcp_protocol() == 0); /* found by name from now on */
    hd_ignore(hd_udp_protocol() == 0);
    hd_ignore(hd_module_add(&hd_ssl_module) == 0);
    hd_ignore(hd_module_add(&hd_proxy_ssl_module) == 0);
    hd_ignore(hd_module_add(&hd_resolver_module) == 0);
    hd_ignore(hd_module_add(&hd_upstream_module) == 0);
    hd_ignore(hd_module_add(&hd_guard_module) == 0);
    hd_xds_register();
    hd_admin_register();
    hd_health_register();
    hd_endpoint_state_register();
    hd_breakers_register();
    hd_resolving = &hd_mesh_resolving;
    hd_named_register();
    hd_resolving_register();
    hd_ocsp_fetcher = &hd_mesh_ocsp_fetcher;
    hd_tls_write_key_log = write_key_log;
    hd_conf_tls_register();
    hd_stapling_register();
    hd_http_conf_register();
    hd_ignore(hd_module_add(&hd_stream_module) == 0);
    hd_process_add_hooks(&serving);
    hd_control_register();
}
