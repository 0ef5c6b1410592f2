/* What hd_parse's files share: the lexer over one text and the reader that follows
 * includes. */
#pragma once
#include "core/conf/hd_parse.h"

#define HD_PARSE_BLOCKS_MAX 100
#define HD_PARSE_INCLUDES_MAX 20
#define HD_PARSE_FILE_MAX ((size_t)16 << 20)
#define HD_PARSE_ARG_MAX 4096
#define HD_PARSE_RAW_MAX ((size_t)1 << 20)
#define HD_PARSE_ARGS_MAX 65536

struct hd_sources_s {
    hd_source_t *items;
    size_t n, room;
};

/* A file that is being read, and the one that included it. */
typedef struct hd_including_s {
    struct hd_including_s *outer;
    hd_str_t file;
    dev_t dev;
    ino_t ino;
    unsigned depth;
} hd_including_t;

typedef struct {
    hd_pool_t *pool;
    hd_sources_t *sources; /* NULL: text from memory, where includes are refused */
    hd_str_t conf_dir;     /* what relative includes are relative to */
    unsigned blocks;       /* how deep we are in blocks, over all files */
} hd_reader_t;

/* Parses <text> as the inside of <parent>. <in>: the file it came from. */
hd_rc_t hd_parse_into(hd_reader_t *r, const hd_including_t *in, hd_str_t text,
                      hd_node_t *parent, hd_err_t *err) HD_MUST_CHECK;
/* Puts the files of an include directive's <pattern> into <parent>. */
hd_rc_t hd_parse_include(hd_reader_t *r, const hd_including_t *in, hd_str_t pattern,
                         hd_node_t *parent, hd_err_t *err) HD_MUST_CHECK;
