/* hd_publish: descriptors first, then the batch. ◆
 * Loader: settings -> master opens sockets and logs, passes them to all workers, they
 * acknowledge -> HD_MSG_PUBLISH -> hd_batch_publish -> ring. The agent does the same
 * through hd_process_prepare. */
#pragma once
#include "core/proc/hd_process.h"

/* In the loader process: reads, builds, talks with the master, publishes, reclaims; the
 * exit status. <shared>: the page that tells the master what is needed. */
int hd_loader_main(hd_proc_t *p, const hd_options_t *options, hd_settings_t *shared,
                   int channel_fd);
/* -t and -T: the same without publishing; prints nginx's two lines. */
int hd_loader_test(const hd_options_t *options);
