/* hd_source_dir: a directory of YAML files as the model's source, watched with inotify.
 *
 * Read are *.yaml, *.yml and *.json directly in the directory, symbolic links too (a
 * mounted ConfigMap's `..data` included), hidden files not. A change is noticed when a
 * writer closes the file or renames one into place, never in the middle of a write; it is
 * taken <quiet_ms> after the last one of a burst, <max_ms> after its first at the latest.
 *
 * What can't be read, or holds errors, is reported in the model's statuses and the log,
 * until it's mended; meanwhile its last good objects stay in force (hd_keep_t). A file
 * that is gone takes its objects with it; a directory that is gone doesn't: it is waited
 * for. Everything is bounded: files, bytes a file, objects.
 *
 * Used by the control process's loop; the model's on_commit is called from here.
 */
#pragma once
#include "control/hd_model.h"
#include "core/net/hd_loop.h"

#define HD_SOURCE_FILES_MAX 20000

typedef struct {
    hd_str_t path;
    uint64_t quiet_ms; /* 0: 20 */
    uint64_t max_ms;   /* 0: 500 */
    size_t files_max;  /* 0: HD_SOURCE_FILES_MAX */
} hd_source_dir_conf_t;

typedef struct hd_source_dir_s hd_source_dir_t;

/* Reads all there is, commits, and watches from then on. <loop> and <model> outlive it.
 * HD_ERROR: the directory can't be read or watched. Files with errors are none of its
 * errors. */
hd_rc_t hd_source_dir_create(hd_loop_t *loop, hd_model_t *model,
                             const hd_source_dir_conf_t *conf, hd_source_dir_t **dir,
                             hd_err_t *err) HD_MUST_CHECK;
/* The model keeps what it has. */
void hd_source_dir_destroy(hd_source_dir_t *dir);

/* Reads all again, now: for those who know better than inotify (a network file system).
 */
void hd_source_dir_reread(hd_source_dir_t *dir);

typedef struct {
    uint64_t files_read, commits, overflows; /* since it was created */
    size_t files_n;
} hd_source_dir_stats_t;
void hd_source_dir_get_stats(const hd_source_dir_t *dir, hd_source_dir_stats_t *stats);
