#ifndef QGC_ENGINE_SEQUENCE_IMPL_H
#define QGC_ENGINE_SEQUENCE_IMPL_H

#include "runtime/engine/sequence.h"

/* What the files of the engine see of a sequence. */

/* As it was begun, with the sampling of now. */
const qgc_sequence_options *qgc_sequence_options_of(const qgc_sequence *s);

#endif
