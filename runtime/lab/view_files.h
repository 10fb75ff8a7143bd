#ifndef QGC_LAB_VIEW_FILES_H
#define QGC_LAB_VIEW_FILES_H

/* The text of view.css and view.js, put into the executable when it is built. */
extern const char qgc_view_css[], qgc_view_js[];

#endif
