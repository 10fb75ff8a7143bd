#ifndef QGC_LAB_XML_H
#define QGC_LAB_XML_H

#include "graph/base/str.h"

/* Text between tags or in an attribute. What XML cannot hold is left out, bytes that are not UTF-8 become U+FFFD. */
void qgc_xml_escape(qgc_str *out, const char *text);

#endif
