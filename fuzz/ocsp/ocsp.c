/* Fuzz target: what a responder answers about a certificate ('r', then DER), and the URLs
 * by which certificates name responders ('u', then text). What it finds goes to
 * regression/ with its fix. */
#include "core/net/hd_ocsp.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NOW_S = 1795951283 /* when the answers of the corpus were made */ };

static const char chain[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIICEzCCAbigAwIBAgIUMKKmrdKEvLAQo416PnrOuuB0kicwCgYIKoZIzj0EAwIw\n"
    "JTEUMBIGA1UECgwLaGVkZGxlIHRlc3QxDTALBgNVBAMMBHJvb3QwHhcNMjYxMTI4\n"
    "MTEyMTA2WhcNMjYxMjI5MjMyMTA2WjAlMRQwEgYDVQQKDAtoZWRkbGUgdGVzdDEN\n"
    "MAsGA1UEAwwEbGVhZjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABI9xgVaFKTMA\n"
    "7EdVHy2TLXgaZGgxVF6whKc2+kHCuOnvQ04xsqib5ToIIjxiXg+KuMiSSkZ9nFsv\n"
    "pG+Oq6N0Kt6jgcUwgcIwDAYDVR0TAQH/BAIwADAOBgNVHQ8BAf8EBAMCBaAwHQYD\n"
    "VR0OBBYEFOKNSNSNIXbZfvjzLBYK1eof3O0GMB0GA1UdJQQWMBQGCCsGAQUFBwMB\n"
    "BggrBgEFBQcDAjAwBggrBgEFBQcBAQQkMCIwIAYIKwYBBQUHMAGGFGh0dHA6Ly8x\n"
    "MjcuMC4wLjE6ODAvMBEGA1UdEQQKMAiCBmEudGVzdDAfBgNVHSMEGDAWgBTuacd4\n"
    "w+18xUsmQW/BoF0ok2y+KDAKBggqhkjOPQQDAgNJADBGAiEAiS0C8a6Gnpnkin8W\n"
    "tUFzA+IT6d12ExPvWjs7mQwTibkCIQDyWjFHcUR3qmayBcI6FeDobYFcN57AEFUc\n"
    "7WFblnX1qw==\n"
    "-----END CERTIFICATE-----\n"
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBjTCCATSgAwIBAgIUfFSSrT00Y89mAW/w9uL3tYJo5fwwCgYIKoZIzj0EAwIw\n"
    "JTEUMBIGA1UECgwLaGVkZGxlIHRlc3QxDTALBgNVBAMMBHJvb3QwHhcNMjYxMTI4\n"
    "MTEyMTA0WhcNMjYxMjI5MjMyMTA0WjAlMRQwEgYDVQQKDAtoZWRkbGUgdGVzdDEN\n"
    "MAsGA1UEAwwEcm9vdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABFNVYw3rUZ8H\n"
    "G1VPYN0BoZ5QjhOjAKHCgwcyn3VDPHzsiEV9P7nTt89NVTbvBC0nu+4oodL0DQXb\n"
    "YDbeijENLRajQjBAMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgEGMB0G\n"
    "A1UdDgQWBBTuacd4w+18xUsmQW/BoF0ok2y+KDAKBggqhkjOPQQDAgNHADBEAiAP\n"
    "obNsX3kpIoyawQJyaCUZirVQtrATT5GToW+y1VEbMwIgKVmjIWZOCOM24B+neGx8\n"
    "Hfazo+Nk+nnAoBlaQILc/7c=\n"
    "-----END CERTIFICATE-----\n";

static void check(bool good)
{
    if (!good)
        abort();
}

static void judge(hd_str_t der)
{
    static hd_ocsp_t *cert;
    hd_ocsp_answer_t answer = {HD_OCSP_UNKNOWN, 0, 0};
    hd_err_t err = {0};

    if (cert == NULL) /* once: it stays */
        cert = hd_ocsp_create(hd_str_c(chain), HD_STR_NONE, false, &err);
    check(cert != NULL);
    if (hd_ocsp_judge(cert, der, NOW_S, &answer, &err) != HD_OK) {
        check(err.text[0] != '\0');
        return;
    }
    check(answer.this_s > 0 && answer.this_s <= NOW_S + HD_OCSP_SKEW_S);
    check(answer.next_s == 0 || (answer.next_s >= answer.this_s &&
                                 answer.next_s >= NOW_S - HD_OCSP_SKEW_S));
}

static bool lies_in(hd_str_t part, hd_str_t text)
{
    return part.data >= text.data && part.data + part.len <= text.data + text.len;
}

static void parse_url(hd_str_t text)
{
    hd_err_t err = {0};
    hd_ocsp_url_t url;

    if (hd_ocsp_parse_url(text, &url, &err) != HD_OK) {
        check(err.text[0] != '\0');
        return;
    }
    check(url.port > 0 && url.host.len > 0 && url.path.len > 0 && url.path.data[0] == '/');
    check(lies_in(url.host, text) && lies_in(url.authority, text));
    for (size_t i = 0; i < text.len; i++) /* it goes into a request's head as it is */
        check(text.data[i] > ' ' && text.data[i] < 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hd_str_t rest = hd_str_n((const char *)data + 1, size - 1);

    if (size > 0 && data[0] == 'r')
        judge(rest);
    else if (size > 0 && data[0] == 'u')
        parse_url(rest);
    return 0;
}
