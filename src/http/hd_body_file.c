#include "http/hd_body_file.h"
#include "http/hd_temp_file.h"

#include <unistd.h>

static void end_file(void *arg)
{
    hd_body_file_t *f = arg;

    hd_temp_file_close(&f->fd);
    if (!f->is_kept)
        hd_ignore(unlink(f->name.data)); /* whoever read it may have taken it away */
}

hd_rc_t hd_body_file_open(hd_req_t *req)
{
    hd_body_file_t *f = req->body_file;
    hd_err_t err = {0};

    if (f != NULL)
        return HD_OK;
    f = hd_pool_new(req->pool, hd_body_file_t);
    f->is_kept = req->loc->body_in_file == HD_BODY_FILE_KEPT;
    f->fd = hd_temp_file_open_named(req->pool, req->loc->body_temp_path, &f->name, &err);
    if (f->fd < 0)
        return hd_req_err(req, err.code, "%s", err.text);
    hd_pool_defer(req->pool, end_file, f);
    req->body_file = f;
    return HD_OK;
}

hd_rc_t hd_body_file_add(hd_req_t *req, const hd_chain_t *body)
{
    hd_body_file_t *f = req->body_file;
    hd_err_t err = {0};

    if (hd_temp_file_write(f->fd, f->bytes, body, &err) != HD_OK)
        return hd_req_err(req, err.code, "%s", err.text);
    f->bytes += (int64_t)body->bytes;
    return HD_OK;
}
