/* ssi: a page on its way, as its filter (ssi.c) and its commands (commands.c) see it. */
#pragma once
#include "lib/bodies.h"

#define SSI_COMMAND_MAX 8192 /* bytes */

extern const hd_module_t hd_module;

typedef struct {
    bool is_on, is_silent, keeps_time;
    size_t value_max; /* 0: 256 */
    size_t min_file_chunk;
    types_t types;
} ssi_conf_t;

/* Text, or what another location answers. */
typedef struct ssi_piece_s {
    struct ssi_piece_s *next;
    hd_chain_t text;
    hd_sub_body_t *sub; /* NULL: text */
    hd_str_t stub, set; /* stands in place of nothing; becomes a variable; empty: not */
    bool has_bytes, is_too_big;
} ssi_piece_t;

typedef struct ssi_var_s {
    struct ssi_var_s *next;
    hd_str_t name, value;
} ssi_var_t;

typedef struct ssi_block_s {
    struct ssi_block_s *next;
    hd_str_t name, whole;
    hd_chain_t text; /* while it is read */
} ssi_block_t;

typedef struct ssi_s {
    hd_req_t *req;
    const ssi_conf_t *conf;
    ssi_piece_t *first, *last, *spare;
    ssi_piece_t *waits_for; /* before the page is read on; NULL */
    size_t text_bytes;      /* in pieces */
    unsigned includes;      /* among them */
    /* The page's bytes: so much of an opening was seen; the command that is read. */
    size_t matched, command_len, dashes;
    char *command;
    char quote;
    bool in_command, is_escaped;
    /* if … endif: inside; a part of it was shown; "else" was there; is this shown? */
    bool is_conditional, has_shown, has_else, is_shown;
    ssi_block_t *blocks, *block; /* block: that is being read */
    ssi_var_t *vars;
    hd_str_t error, time_format;
    hd_str_t captures[10];
} ssi_t;

typedef struct {
    hd_str_t uri, args, stub, set;
    bool waits;
} ssi_include_t;

/* --- ssi.c --- */
hd_rc_t ssi_add_text(ssi_t *s, hd_str_t text) HD_MUST_CHECK;
/* False: too many requests within one another. */
bool ssi_include(ssi_t *s, const ssi_include_t *what) HD_MUST_CHECK;
hd_rc_t ssi_no_block(hd_req_t *req);

/* --- commands.c --- */
/* <text>: what stands between "<!--#" and "-->". */
hd_rc_t ssi_run(ssi_t *s, hd_str_t text) HD_MUST_CHECK;
hd_rc_t ssi_show_error(ssi_t *s) HD_MUST_CHECK;
hd_rc_t ssi_add_to_block(ssi_t *s, hd_str_t text) HD_MUST_CHECK;
void ssi_set_var(ssi_t *s, hd_str_t name, hd_str_t value);
