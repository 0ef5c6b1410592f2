/* hd_list: an intrusive doubly linked ring. The container does not own its members.
 * A link is embedded in the member; an unlinked link points to itself after init. */
#pragma once
#include "core/base/hd_types.h"

typedef struct hd_link_s {
    struct hd_link_s *prev, *next;
} hd_link_t;

static inline void hd_list_init(hd_link_t *head)
{
    head->prev = head->next = head;
}

static inline bool hd_list_is_empty(const hd_link_t *head)
{
    return head->next == head;
}

static inline void hd_list_add_last(hd_link_t *head, hd_link_t *link)
{
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

static inline void hd_list_add_first(hd_link_t *head, hd_link_t *link)
{
    hd_list_add_last(head->next, link);
}

/* Leaves <link> pointing to itself, so that removing it again is harmless. */
static inline void hd_list_remove(hd_link_t *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    hd_list_init(link);
}

#define hd_list_entry(link, type, member) hd_container_of(link, type, member)
/* <it> may be removed inside the body; others may not. */
#define hd_list_each(it, head)                                                           \
    for (hd_link_t *it = (head)->next, *it##_next = it->next; it != (head);              \
         it = it##_next, it##_next = it->next)
