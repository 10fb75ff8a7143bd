#include "runtime/lab/xml.h"

#include "graph/base/utf8.h"

static const char *entity(char c) {
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    default:
        return NULL;
    }
}

void qgc_xml_escape(qgc_str *out, const char *text) {
    for (const char *t = text; *t;) {
        uint32_t letter;
        const int n = qgc_utf8_decode(t, 4, &letter);
        if (n == 0)
            qgc_str_add(out, QGC_UTF8_REPLACEMENT);
        else if (entity(*t))
            qgc_str_add(out, entity(*t));
        else if ((unsigned char)*t >= ' ' || *t == '\t' || *t == '\n')
            qgc_str_add_bytes(out, t, (size_t)n);
        t += n ? n : 1;
    }
}
