#ifndef QGC_BASE_VERSION_H
#define QGC_BASE_VERSION_H

/* Which qgc this is; written by graph/base/version.cmake at each build. */
extern const char qgc_version_number[]; /* "0.1.0" */
extern const char qgc_version_text
    []; /* "0.1.0 (1a2b3c4d5e6f)": the commit, where it is known, with a + if files differ from it */

#endif
