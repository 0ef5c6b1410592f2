/* hd_labels_int: records of families, label sets and series in the state arena, entered
 * by anyone without a lock, never removed. */
#pragma once
#include "core/loom/hd_loom_int.h"

typedef enum { HD_REC_FAMILY = 1, HD_REC_LABELS, HD_REC_SERIES } hd_rec_kind_t;

/* Refers to a record; 0: none. */
typedef uint32_t hd_rec_ref_t;

typedef struct {
    uint32_t kind;  /* hd_rec_kind_t */
    uint32_t bytes; /* of the record */
    uint32_t hash;
    uint32_t data_len;
    uint32_t a, b; /* family: labels, kind | buckets << 8; series: family, labels */
    uint32_t word, words_n;        /* series: its words; family: series_max, words each */
    _Atomic hd_rec_ref_t next;     /* series of a family, families */
    _Atomic hd_rec_ref_t head;     /* family: its newest series */
    _Atomic hd_rec_ref_t overflow; /* family */
    _Atomic uint32_t series_n;     /* family; about (a death may lose one) */
    char data[];
} hd_rec_t;

/* What is looked for or entered: <kind>, <a>, <b> and <data> make it the same. */
typedef struct {
    uint32_t kind, a, b;
    uint32_t words_n; /* of a series; of a family's each */
    uint32_t word;    /* family: series_max */
    const char *data;
    uint32_t data_len;
    uint32_t key_len; /* so many bytes of data count */
} hd_rec_want_t;

const hd_rec_t *hd_rec_at(const hd_state_t *s, hd_rec_ref_t ref);
hd_rec_ref_t hd_rec_find(const hd_state_t *s, const hd_rec_want_t *want);
/* 0: no room. */
hd_rec_ref_t hd_rec_enter(hd_member_t *m, const hd_rec_want_t *want);
