#ifndef QGC_MODELS_TEMPLATE_H
#define QGC_MODELS_TEMPLATE_H

#include "models/chat.h"

/* Runs a chat template on a conversation. Of Jinja it knows what templates of the ChatML family are written in: if, for over
 * the messages, set, and expressions of names, texts, comparisons, and, or, not, is, + and ~. Names that are not known
 * are undefined, as tools are where there are none. Code that is not known and is reached is a refusal, never a guess. */

enum {
    QGC_EXPRESSION = 1,
    QGC_END_EXPRESSION = 2,
    QGC_STATEMENT = 3,
    QGC_END_STATEMENT = 4
}; /* marks of an outline */

/* `outline` is the template as models/chat.c cuts it up: text as it is printed, code between marks, without the blanks that
 * it does not need. Appends what is printed for the messages and the prompt of the answer after them to `out`; or
 * returns why it cannot. */
const char *qgc_template_run(const char *outline, const qgc_message *messages, int n, qgc_str *out);

/* What \letter stands for in a literal. */
char qgc_template_escaped(char letter);

#endif
