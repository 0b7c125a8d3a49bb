/* A 5x5 convolution followed by 2x2 max pooling, and the three products its derivatives are made of.

   The maximum of a window comes from one of its four positions, so a gradient reaches one convolution output in four,
   and the derivatives of any order are sums over these winners only: `gather` computes the outputs of given winners,
   `scatter_x` and `scatter_w` are its transposes. In each, the work for one winner is 5 rows of 5 * C numbers, which lie side
   by side where channels come last.

   Shapes: x [G, B, H, W, C], w [G, O, 5, 5, C], outputs [G, B, PH, PW, O]; G networks, of which x or w may be shared
   (stride 0). `winner` 0..3 is row * 2 + column in its window. Zeros surround the images, `pad` wide. */
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define K 5
#define INLINE static inline __attribute__((always_inline))
#define PRAGMA(text) _Pragma(#text)
#define PARALLEL(work) PRAGMA(omp parallel if ((work) > 50000))

/* `wide` holds outputs side by side, `part` a piece of an image's row; short rows waste less of short vectors */
typedef REAL wide __attribute__((vector_size(64)));
typedef INT wide_int __attribute__((vector_size(64)));
typedef REAL part __attribute__((vector_size(32)));
typedef REAL part_anywhere __attribute__((vector_size(32), aligned(sizeof(REAL)), may_alias));
enum { WIDE = 64 / sizeof(REAL), PART = 32 / sizeof(REAL) };

typedef struct {
    long groups, batch, height, width, channels, outputs, pad, x_stride, w_stride;
} Size;

/* what follows from a size: padded rows [floats], pooled height and width, vectors a filter row */
typedef struct {
    long row, pixels, tall, broad, cells, parts;
} Plan;

static Plan plan_of(const Size *n) {
    Plan p;
    p.row = (n->width + 2 * n->pad) * n->channels;
    p.pixels = (n->height + 2 * n->pad) * p.row;
    p.tall = (n->height + 2 * n->pad - K + 1) / 2;
    p.broad = (n->width + 2 * n->pad - K + 1) / 2;
    p.cells = p.tall * p.broad * n->outputs;
    p.parts = (K * n->channels + PART - 1) / PART;
    return p;
}

static void *zeros(long bytes) {
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    return memset(memory, 0, bytes);
}

/* room for a padded image; vectors may reach beyond its last row */
static REAL *new_image(const Plan *p) { return zeros((p->pixels + p->parts * PART) * sizeof(REAL)); }

static void read_image(REAL *image, const REAL *x, const Size *n, const Plan *p) {
    const long length = n->width * n->channels;
    for (long y = 0; y < n->height; y++)
        memcpy(image + (y + n->pad) * p->row + n->pad * n->channels, x + y * length, length * sizeof(REAL));
}

static void write_image(REAL *x, const REAL *image, const Size *n, const Plan *p) {
    const long length = n->width * n->channels;
    for (long y = 0; y < n->height; y++)
        memcpy(x + y * length, image + (y + n->pad) * p->row + n->pad * n->channels, length * sizeof(REAL));
}

/* filters [O, 5, 5 * C] as [O, 5, parts] vectors, zero beyond 5 * C */
static void read_filters(part *rows, const REAL *w, const Size *n, const Plan *p) {
    memset(rows, 0, n->outputs * K * p->parts * sizeof(part));
    for (long r = 0; r < n->outputs * K; r++)
        memcpy(rows + r * p->parts, w + r * K * n->channels, K * n->channels * sizeof(REAL));
}

INLINE part load(const REAL *at) { return *(const part_anywhere *)at; }
INLINE void add_to(REAL *at, part value) { *(part_anywhere *)at += value; }

INLINE REAL sum(part v) {
    for (int half = PART / 2; half; half /= 2)
        for (int i = 0; i < half; i++) v[i] += v[i + half];
    return v[0];
}

/* this thread's share of `count` tasks */
#define SHARE(i, count)                                              \
    for (long i = (count) * omp_get_thread_num() / omp_get_num_threads(), \
              last = (count) * (omp_get_thread_num() + 1) / omp_get_num_threads(); i < last; i++)

/* the largest of the sums at a window's four positions, and which one it is */
INLINE wide best_of_window(const REAL *window, const wide *filter, wide_int *which, long channels, long row) {
    wide sums[4] = {0};
    for (int ky = 0; ky < K; ky++) {
        const REAL *at = window + ky * row;
        for (long k = 0; k < K * channels; k++, filter++, at++) {
            sums[0] += *filter * at[0];
            sums[1] += *filter * at[channels];
            sums[2] += *filter * at[row];
            sums[3] += *filter * at[row + channels];
        }
    }
    wide best = sums[0];
    wide_int winner = {0};
    for (int j = 1; j < 4; j++) {
        const wide_int better = (sums[j] > best) | (sums[j] != sums[j]);
        best = (wide)((better & (wide_int)sums[j]) | (~better & (wide_int)best));
        winner = (better & j) | (~better & winner);
    }
    *which = winner;
    return best;
}

/* z = maximum over windows of conv(x, w), and which position won: the first among equals; NaN wins, as in torch.
   Outputs fill the lanes of vectors; where networks share the images, the outputs of all of them do. */
void conv_max_pool(const REAL *x, const REAL *w, REAL *z, uint8_t *winner, const Size *n) {
    const Plan plan = plan_of(n), *p = &plan;
    const int shared = n->x_stride == 0;
    const long taps = K * K * n->channels, together = shared ? n->groups : 1, lanes = together * n->outputs;
    const long blocks = (lanes + WIDE - 1) / WIDE, tasks = n->groups / together * n->batch;
    PARALLEL(tasks * blocks * p->tall * p->broad * taps) {
        wide *filters = zeros(blocks * taps * sizeof(wide)); /* [blocks, taps] */
        REAL *image = new_image(p);
        long *place = zeros(lanes * sizeof(long)); /* of an output, beside the first of its image */
        for (long o = 0; o < lanes; o++) place[o] = o / n->outputs * n->batch * p->cells + o % n->outputs;
        long group = -1;
        SHARE(i, tasks) {
            if (i / n->batch != group) {
                group = i / n->batch;
                for (long o = 0; o < lanes; o++)
                    for (long k = 0; k < taps; k++)
                        filters[o / WIDE * taps + k][o % WIDE] =
                            w[(group + o / n->outputs) * n->w_stride + (o % n->outputs) * taps + k];
            }
            read_image(image, x + group * n->x_stride + i % n->batch * n->height * n->width * n->channels, n, p);
            for (long block = 0; block < blocks; block++)
                for (long py = 0; py < p->tall; py++)
                    for (long px = 0; px < p->broad; px++) {
                        wide_int which;
                        const REAL *window = image + 2 * py * p->row + 2 * px * n->channels;
                        const wide best = best_of_window(window, filters + block * taps, &which, n->channels, p->row);
                        const long first = i * p->cells + (py * p->broad + px) * n->outputs;
                        for (long lane = 0; lane < WIDE && block * WIDE + lane < lanes; lane++) {
                            const long at = first + place[block * WIDE + lane];
                            z[at] = best[lane], winner[at] = which[lane];
                        }
                    }
        }
        free(filters), free(image), free(place);
    }
}

/* The functions for one image know `parts`, the vectors a filter row takes, when compiled: a filter stays in registers.
   They are for parts up to 8: 12 channels in float, 6 in double. */
#define FOR_PARTS(name, ...)                      \
    switch (p.parts) {                            \
        case 1: name(__VA_ARGS__, n, &p, 1); break; \
        case 2: name(__VA_ARGS__, n, &p, 2); break; \
        case 3: name(__VA_ARGS__, n, &p, 3); break; \
        case 4: name(__VA_ARGS__, n, &p, 4); break; \
        case 5: name(__VA_ARGS__, n, &p, 5); break; \
        case 6: name(__VA_ARGS__, n, &p, 6); break; \
        case 7: name(__VA_ARGS__, n, &p, 7); break; \
        case 8: name(__VA_ARGS__, n, &p, 8); break; \
    }
#define EACH_PART(ky, v)            \
    for (int ky = 0; ky < K; ky++)  \
        for (int v = 0; v < parts; v++)

/* Goes over the outputs of channel o: `at` is an output's index, `patch` where its winner's patch begins. */
#define EACH_WINNER(at, patch, o, ...)                                                           \
    for (long py = 0, at = o; py < p->tall; py++)                                                \
        for (long px = 0; px < p->broad; px++, at += n->outputs) {                               \
            REAL *patch = image + 2 * py * p->row + 2 * px * n->channels + jump[winner[at]];     \
            __VA_ARGS__                                                                          \
        }
#define JUMPS {0, n->channels, p->row, p->row + n->channels}

INLINE void gather_image(
    REAL *image, const part *filters, const uint8_t *winner, REAL *z, const Size *n, const Plan *p, const int parts) {
    const long jump[4] = JUMPS;
    for (long o = 0; o < n->outputs; o++) {
        part f[K][parts];
        EACH_PART(ky, v) f[ky][v] = filters[(o * K + ky) * parts + v];
        EACH_WINNER(at, patch, o, {
            part total = {0};
            EACH_PART(ky, v) total += f[ky][v] * load(patch + ky * p->row + v * PART);
            z[at] = sum(total);
        })
    }
}

INLINE void scatter_x_image(
    REAL *image, const part *filters, const uint8_t *winner, const REAL *g, const Size *n, const Plan *p,
    const int parts) {
    const long jump[4] = JUMPS;
    for (long o = 0; o < n->outputs; o++) {
        part f[K][parts];
        EACH_PART(ky, v) f[ky][v] = filters[(o * K + ky) * parts + v];
        EACH_WINNER(at, patch, o, {
            EACH_PART(ky, v) add_to(patch + ky * p->row + v * PART, f[ky][v] * g[at]);
        })
    }
}

INLINE void scatter_w_image(
    REAL *image, part *filters, const uint8_t *winner, const REAL *g, const Size *n, const Plan *p, const int parts) {
    const long jump[4] = JUMPS;
    for (long o = 0; o < n->outputs; o++) {
        part f[K][parts];
        EACH_PART(ky, v) f[ky][v] = filters[(o * K + ky) * parts + v];
        EACH_WINNER(at, patch, o, {
            EACH_PART(ky, v) f[ky][v] += load(patch + ky * p->row + v * PART) * g[at];
        })
        EACH_PART(ky, v) filters[(o * K + ky) * parts + v] = f[ky][v];
    }
}

/* z: the convolution's outputs where the winners are */
void gather(const REAL *x, const REAL *w, const uint8_t *winner, REAL *z, const Size *n) {
    const Plan p = plan_of(n);
    const long tasks = n->groups * n->batch;
    PARALLEL(tasks * p.cells * K * p.parts) {
        part *filters = zeros(n->outputs * K * p.parts * sizeof(part));
        REAL *image = new_image(&p);
        long group = -1;
        SHARE(i, tasks) {
            if (i / n->batch != group) read_filters(filters, w + (group = i / n->batch) * n->w_stride, n, &p);
            read_image(image, x + group * n->x_stride + i % n->batch * n->height * n->width * n->channels, n, &p);
            FOR_PARTS(gather_image, image, filters, winner + i * p.cells, z + i * p.cells)
        }
        free(filters), free(image);
    }
}

/* x: the gradient of <g, gather(x, w)> for the images */
void scatter_x(const REAL *g, const REAL *w, const uint8_t *winner, REAL *x, const Size *n) {
    const Plan p = plan_of(n);
    const long tasks = n->groups * n->batch;
    PARALLEL(tasks * p.cells * K * p.parts) {
        part *filters = zeros(n->outputs * K * p.parts * sizeof(part));
        REAL *image = new_image(&p);
        long group = -1;
        SHARE(i, tasks) {
            if (i / n->batch != group) read_filters(filters, w + (group = i / n->batch) * n->w_stride, n, &p);
            memset(image, 0, p.pixels * sizeof(REAL));
            FOR_PARTS(scatter_x_image, image, filters, winner + i * p.cells, g + i * p.cells)
            write_image(x + i * n->height * n->width * n->channels, image, n, &p);
        }
        free(filters), free(image);
    }
}

/* w: the gradient of <g, gather(x, w)> for the filters; threads share a batch where there are fewer networks */
void scatter_w(const REAL *g, const REAL *x, const uint8_t *winner, REAL *w, const Size *n) {
    const Plan p = plan_of(n);
    const long size = n->outputs * K * p.parts, threads = omp_get_max_threads();
    const long shares = n->groups < threads && n->batch * p.cells * K * p.parts > 50000 ? threads : 1;
    part *totals = zeros(n->groups * shares * size * sizeof(part));
    PARALLEL(n->groups * n->batch * p.cells * K * p.parts) {
        REAL *image = new_image(&p);
        SHARE(task, n->groups * shares) {
            const long group = task / shares, share = task % shares;
            for (long b = n->batch * share / shares; b < n->batch * (share + 1) / shares; b++) {
                const long first = (group * n->batch + b) * p.cells;
                read_image(image, x + group * n->x_stride + b * n->height * n->width * n->channels, n, &p);
                FOR_PARTS(scatter_w_image, image, totals + task * size, winner + first, g + first)
            }
        }
        free(image);
    }
    for (long group = 0; group < n->groups; group++) {
        part *total = totals + group * shares * size;
        for (long i = size; i < shares * size; i++) total[i % size] += total[i];
        for (long r = 0; r < n->outputs * K; r++)
            memcpy(w + (group * n->outputs * K + r) * K * n->channels, total + r * p.parts, K * n->channels * sizeof(REAL));
    }
    free(totals);
}
