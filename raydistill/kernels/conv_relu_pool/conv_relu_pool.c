/* A 5x5 convolution, ReLU and 2x2 max pooling in one, and the three products its derivatives are made of.

   What comes out of a window is the convolution at one of its four positions, or 0 where none is positive. So a gradient
   reaches fewer than one convolution output in four, and derivatives of any order are sums over these winners only:
   `gather` computes the convolution at given winners, `scatter_x` and `scatter_w` are its transposes. For a winner each
   goes through 5 rows of 5 * C numbers, which lie side by side where channels come last.

   Shapes: x [G, B, H, W, C], w [G, O, C, 5, 5], bias [G, O]; outputs z and g [G, B, cells, O] or [G, B, O, cells]. G
   networks, which may share x or w and bias (stride 0). A winner is row * 2 + column in its window, or NONE. */
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define K 5
#define NONE 4
#define INLINE static inline __attribute__((always_inline))
#define PRAGMA(text) _Pragma(#text)
#define PARALLEL(work) PRAGMA(omp parallel if ((work) > 50000))

/* `wide` vectors, and `part`s of 8 floats or 4 doubles: with 6 outputs, or rows of 5 numbers, wide ones are half empty */
typedef REAL wide __attribute__((vector_size(64)));
typedef INT wide_int __attribute__((vector_size(64)));
typedef REAL part __attribute__((vector_size(32)));
typedef INT part_int __attribute__((vector_size(32)));
typedef REAL part_anywhere __attribute__((vector_size(32), aligned(sizeof(REAL)), may_alias));
enum { WIDE = 64 / sizeof(REAL), PART = 32 / sizeof(REAL) };

typedef struct {
    long groups, batch, height, width, channels, outputs, pad, x_shared, w_shared, outputs_last;
} Size;

/* what follows from a size */
typedef struct {
    long x_size, w_size;               /* numbers in an image and in a network's filters */
    long row, padded;                  /* numbers in a row of the padded image, and in all of it */
    long tall, broad, cells, z_size;   /* windows down, across, both; numbers in the outputs of an image */
    long z_output, z_cell;             /* from one output to the next, from one window to the next */
    long parts;                        /* vectors that a filter's row takes */
    long jump[4];                      /* from a window's first patch to those of its four positions */
} Plan;

static Plan plan_of(const Size *n) {
    Plan p;
    const long C = n->channels;
    p.x_size = n->height * n->width * C;
    p.w_size = n->outputs * C * K * K;
    p.row = (n->width + 2 * n->pad) * C;
    p.padded = (n->height + 2 * n->pad) * p.row;
    p.tall = (n->height + 2 * n->pad - K + 1) / 2;
    p.broad = (n->width + 2 * n->pad - K + 1) / 2;
    p.cells = p.tall * p.broad;
    p.z_size = p.cells * n->outputs;
    p.z_output = n->outputs_last ? 1 : p.cells;
    p.z_cell = n->outputs_last ? n->outputs : 1;
    p.parts = (K * C + PART - 1) / PART;
    p.jump[0] = 0, p.jump[1] = C, p.jump[2] = p.row, p.jump[3] = p.row + C;
    return p;
}

static void *zeros(long bytes) { return memset(aligned_alloc(64, (bytes + 63) / 64 * 64), 0, bytes); }

/* room for a padded image; vectors may reach beyond its last row */
static REAL *new_image(const Plan *p) { return zeros((p->padded + p->parts * PART) * sizeof(REAL)); }

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

/* Weights are in torch's order [O, C, 5, 5] outside. Inside they are in rows [O, 5, parts] of vectors, channels last. */
#define EACH_WEIGHT(o, c, ky, kx)                    \
    for (long o = 0; o < n->outputs; o++)            \
        for (long c = 0; c < n->channels; c++)       \
            for (long ky = 0; ky < K; ky++)          \
                for (long kx = 0; kx < K; kx++, w++)
#define IN_ROWS(o, c, ky, kx) ((o * K + ky) * p->parts * PART + kx * n->channels + c)

static void read_filters(part *rows, const REAL *w, const Size *n, const Plan *p) {
    EACH_WEIGHT(o, c, ky, kx) ((REAL *)rows)[IN_ROWS(o, c, ky, kx)] = *w;
}

static void write_filters(REAL *w, const part *rows, const Size *n, const Plan *p) {
    EACH_WEIGHT(o, c, ky, kx) *w = ((const REAL *)rows)[IN_ROWS(o, c, ky, kx)];
}

INLINE part load(const REAL *at) { return *(const part_anywhere *)at; }
INLINE void add_to(REAL *at, part value) { *(part_anywhere *)at += value; }

INLINE REAL sum(part v) {
    for (int half = PART / 2; half; half /= 2)
        for (int i = 0; i < half; i++) v[i] += v[i + half];
    return v[0];
}

/* this thread's share of `count` tasks */
#define SHARE(i, count)                                                       \
    for (long i = (count) * omp_get_thread_num() / omp_get_num_threads(),     \
              end_##i = (count) * (omp_get_thread_num() + 1) / omp_get_num_threads(); i < end_##i; i++)

/* name(...): max_pool(relu(conv + bias)) at `count` windows, and which positions won: the first among equals; NaN wins.
   The lanes of a vector are outputs. Several sums grow side by side, as each has to wait for its last addition. */
#define DEFINE_WINDOWS(name, vec, vec_int, count)                                                      \
    typedef uint8_t name##_bytes __attribute__((vector_size(sizeof(vec) / sizeof(REAL))));             \
    INLINE void name(                                                                                  \
        REAL *const *window, const void *filters, const void *bias, REAL **z, uint8_t **winner, long channels, \
        long row) {                                                                                    \
        vec sums[count][4] = {0};                                                                      \
        const vec *filter = filters;                                                                   \
        for (int ky = 0; ky < K; ky++)                                                                 \
            for (long k = 0; k < K * channels; k++, filter++)                                          \
                for (int i = 0; i < count; i++) {                                                      \
                    const REAL *at = window[i] + ky * row + k;                                         \
                    sums[i][0] += *filter * at[0];                                                     \
                    sums[i][1] += *filter * at[channels];                                              \
                    sums[i][2] += *filter * at[row];                                                   \
                    sums[i][3] += *filter * at[row + channels];                                        \
                }                                                                                      \
        for (int i = 0; i < count; i++) {                                                              \
            vec best = sums[i][0];                                                                     \
            vec_int which = {0};                                                                       \
            for (int j = 1; j < 4; j++) {                                                              \
                const vec_int better = (sums[i][j] > best) | (sums[i][j] != sums[i][j]);               \
                best = (vec)((better & (vec_int)sums[i][j]) | (~better & (vec_int)best));              \
                which = (better & j) | (~better & which);                                              \
            }                                                                                          \
            best += *(const vec *)bias;                                                                \
            const vec_int none = best <= 0;                                                            \
            which = (none & NONE) | (~none & which);                                                   \
            best = (vec)(~none & (vec_int)best);                                                       \
            const name##_bytes bytes = __builtin_convertvector(which, name##_bytes);                   \
            memcpy(z[i], &best, sizeof best), memcpy(winner[i], &bytes, sizeof bytes);                 \
        }                                                                                              \
    }
DEFINE_WINDOWS(one_window, wide, wide_int, 1)
DEFINE_WINDOWS(two_windows, part, part_int, 2)

/* z = max_pool(relu(conv(x, w) + bias)), and which position won.
   Where networks share the images, the outputs of all of them fill the lanes. */
void conv_relu_pool(const REAL *x, const REAL *weights, const REAL *bias, REAL *z, uint8_t *winner, const Size *n) {
    const Plan plan = plan_of(n), *p = &plan;
    const long taps = K * K * n->channels, together = n->x_shared ? n->groups : 1, outputs = together * n->outputs;
    const long lanes = outputs <= PART ? PART : WIDE, at_once = outputs <= PART ? 2 : 1;
    const long blocks = (outputs + lanes - 1) / lanes, tasks = n->groups / together * n->batch;
    PARALLEL(tasks * blocks * p->cells * taps) {
        REAL *filters = zeros(blocks * taps * lanes * sizeof(REAL)); /* [blocks, 5, 5, C, lanes] */
        REAL *biases = zeros(blocks * lanes * sizeof(REAL)), *image = new_image(p);
        REAL *values = zeros((p->cells * outputs + lanes) * sizeof(REAL)); /* [cells, outputs] of an image */
        uint8_t *winners = zeros(p->cells * outputs + lanes);
        long group = -1;
        SHARE(i, tasks) {
            for (long g = 0; g < together && i / n->batch != group; g++) {
                const long of = n->w_shared ? 0 : i / n->batch + g;
                const REAL *w = weights + of * p->w_size;
                for (long o = 0; o < n->outputs; o++) {
                    const long lane = g * n->outputs + o;
                    REAL *f = filters + lane / lanes * taps * lanes + lane % lanes;
                    for (long c = 0; c < n->channels; c++)
                        for (long tap = 0; tap < K * K; tap++) f[(tap * n->channels + c) * lanes] = *w++;
                }
                memcpy(biases + g * n->outputs, bias + of * n->outputs, n->outputs * sizeof(REAL));
            }
            group = i / n->batch;
            read_image(image, x + (n->x_shared ? i % n->batch : i) * p->x_size, n, p);
            for (long cell = 0; cell < p->cells; cell += at_once)
                for (long block = 0; block < blocks; block++) { /* a vector's end is overwritten by the next one */
                    REAL *window[2], *to[2], *f = filters + block * taps * lanes, *b = biases + block * lanes;
                    uint8_t *to_winner[2];
                    for (long k = at_once - 1; k >= 0; k--) {
                        const unsigned at = cell + k < p->cells ? cell + k : cell, py = at / (unsigned)p->broad;
                        window[k] = image + 2 * py * p->row + 2 * (at - py * p->broad) * n->channels;
                        to[k] = values + at * outputs + block * lanes;
                        to_winner[k] = winners + at * outputs + block * lanes;
                    }
                    if (at_once == 2) two_windows(window, f, b, to, to_winner, n->channels, p->row);
                    if (at_once == 1) one_window(window, f, b, to, to_winner, n->channels, p->row);
                }
            for (long g = 0; g < together; g++) {
                const long first = (g * n->batch + i) * p->z_size;
                for (long o = 0; o < n->outputs; o++)
                    for (long cell = 0; cell < p->cells; cell++) {
                        const long at = first + o * p->z_output + cell * p->z_cell;
                        z[at] = values[cell * outputs + g * n->outputs + o];
                        winner[at] = winners[cell * outputs + g * n->outputs + o];
                    }
            }
        }
        free(filters), free(image), free(biases), free(values), free(winners);
    }
}

/* The outputs that somebody won: where in z, and where the patch begins in the image. */
typedef struct {
    int z, patch;
} Winner;

static long list_winners(Winner *list, const uint8_t *winner, long o, const Size *n, const Plan *p) {
    long count = 0;
    for (long py = 0; py < p->tall; py++)
        for (long px = 0; px < p->broad; px++) {
            const long at = o * p->z_output + (py * p->broad + px) * p->z_cell, j = winner[at];
            list[count].z = at;
            list[count].patch = 2 * py * p->row + 2 * px * n->channels + p->jump[j % NONE];
            count += j != NONE; /* the next one overwrites what nobody won */
        }
    return count;
}

/* The functions for one image know `parts` when compiled, so that a filter stays in registers. They are for parts up to
   8: 12 channels in float, 6 in double. */
#define FOR_PARTS(name, ...)                        \
    switch (p->parts) {                             \
        case 1: name(__VA_ARGS__, n, p, 1); break;  \
        case 2: name(__VA_ARGS__, n, p, 2); break;  \
        case 3: name(__VA_ARGS__, n, p, 3); break;  \
        case 4: name(__VA_ARGS__, n, p, 4); break;  \
        case 5: name(__VA_ARGS__, n, p, 5); break;  \
        case 6: name(__VA_ARGS__, n, p, 6); break;  \
        case 7: name(__VA_ARGS__, n, p, 7); break;  \
        case 8: name(__VA_ARGS__, n, p, 8); break;  \
    }
#define EACH_PART(ky, v)            \
    for (int ky = 0; ky < K; ky++)  \
        for (int v = 0; v < parts; v++)
#define IMAGE_ARGS const uint8_t *winner, Winner *list, const Size *n, const Plan *p, const int parts

INLINE void gather_image(const REAL *image, const part *filters, const REAL *bias, REAL *z, IMAGE_ARGS) {
    memset(z, 0, p->z_size * sizeof(REAL));
    for (long o = 0; o < n->outputs; o++) {
        part f[K][parts];
        EACH_PART(ky, v) f[ky][v] = filters[(o * K + ky) * parts + v];
        const long count = list_winners(list, winner, o, n, p);
        for (long i = 0; i < count; i++) {
            part total = {0};
            EACH_PART(ky, v) total += f[ky][v] * load(image + list[i].patch + ky * p->row + v * PART);
            z[list[i].z] = sum(total) + bias[o];
        }
    }
}

INLINE void scatter_x_image(REAL *image, const part *filters, const REAL *g, IMAGE_ARGS) {
    enum { APART = 5 }; /* patches that overlap are not added one right after the other: a load would wait for a store */
    for (long o = 0; o < n->outputs; o++) {
        part f[K][parts];
        EACH_PART(ky, v) f[ky][v] = filters[(o * K + ky) * parts + v];
        const long count = list_winners(list, winner, o, n, p);
        for (long first = 0; first < APART; first++)
            for (long i = first; i < count; i += APART)
                EACH_PART(ky, v) add_to(image + list[i].patch + ky * p->row + v * PART, f[ky][v] * g[list[i].z]);
    }
}

INLINE void scatter_w_image(const REAL *image, part *filters, REAL *bias, const REAL *g, IMAGE_ARGS) {
    for (long o = 0; o < n->outputs; o++) {
        part f[K][parts];
        EACH_PART(ky, v) f[ky][v] = filters[(o * K + ky) * parts + v];
        const long count = list_winners(list, winner, o, n, p);
        for (long i = 0; i < count; i++) {
            const REAL amount = g[list[i].z];
            bias[o] += amount;
            EACH_PART(ky, v) f[ky][v] += load(image + list[i].patch + ky * p->row + v * PART) * amount;
        }
        EACH_PART(ky, v) filters[(o * K + ky) * parts + v] = f[ky][v];
    }
}

/* z: the convolution where the winners are, 0 elsewhere */
void gather(const REAL *x, const REAL *w, const REAL *bias, const uint8_t *winner, REAL *z, const Size *n) {
    const Plan plan = plan_of(n), *p = &plan;
    const long tasks = n->groups * n->batch;
    PARALLEL(tasks * p->z_size * K * p->parts) {
        part *filters = zeros(n->outputs * K * p->parts * sizeof(part));
        REAL *image = new_image(p);
        Winner *list = zeros((p->cells + 1) * sizeof(Winner));
        long group = -1;
        SHARE(i, tasks) {
            if (i / n->batch != group) read_filters(filters, w + (n->w_shared ? 0 : i / n->batch) * p->w_size, n, p);
            group = i / n->batch;
            read_image(image, x + (n->x_shared ? i % n->batch : i) * p->x_size, n, p);
            const REAL *b = bias + (n->w_shared ? 0 : group) * n->outputs;
            FOR_PARTS(gather_image, image, filters, b, z + i * p->z_size, winner + i * p->z_size, list)
        }
        free(filters), free(image), free(list);
    }
}

/* x: the gradient of <g, gather(x, w, bias)> for the images */
void scatter_x(const REAL *g, const REAL *w, const uint8_t *winner, REAL *x, const Size *n) {
    const Plan plan = plan_of(n), *p = &plan;
    const long tasks = n->groups * n->batch;
    PARALLEL(tasks * p->z_size * K * p->parts) {
        part *filters = zeros(n->outputs * K * p->parts * sizeof(part));
        REAL *image = new_image(p);
        Winner *list = zeros((p->cells + 1) * sizeof(Winner));
        long group = -1;
        SHARE(i, tasks) {
            if (i / n->batch != group) read_filters(filters, w + (n->w_shared ? 0 : i / n->batch) * p->w_size, n, p);
            group = i / n->batch;
            memset(image, 0, p->padded * sizeof(REAL));
            FOR_PARTS(scatter_x_image, image, filters, g + i * p->z_size, winner + i * p->z_size, list)
            write_image(x + i * p->x_size, image, n, p);
        }
        free(filters), free(image), free(list);
    }
}

/* w, bias: the gradient of <g, gather(x, w, bias)> for both; threads share a batch where there are fewer networks */
void scatter_w(const REAL *g, const REAL *x, const uint8_t *winner, REAL *w, REAL *bias, const Size *n) {
    const Plan plan = plan_of(n), *p = &plan;
    const long work = n->batch * p->z_size * K * p->parts, threads = omp_get_max_threads();
    const long shares = n->groups < threads && work > 50000 ? threads : 1; /* of a batch */
    const long size = n->outputs * K * p->parts, total = size + (n->outputs + PART - 1) / PART; /* filters, biases */
    part *totals = zeros(n->groups * shares * total * sizeof(part));
    PARALLEL(n->groups * work) {
        REAL *image = new_image(p);
        Winner *list = zeros((p->cells + 1) * sizeof(Winner));
        SHARE(task, n->groups * shares) {
            const long group = task / shares, share = task % shares;
            part *mine = totals + task * total;
            for (long b = n->batch * share / shares; b < n->batch * (share + 1) / shares; b++) {
                const long i = group * n->batch + b;
                read_image(image, x + (n->x_shared ? b : i) * p->x_size, n, p);
                REAL *biases = (REAL *)(mine + size);
                FOR_PARTS(scatter_w_image, image, mine, biases, g + i * p->z_size, winner + i * p->z_size, list)
            }
        }
        free(image), free(list);
    }
    for (long group = 0; group < n->groups; group++) {
        part *sums = totals + group * shares * total;
        for (long i = total; i < shares * total; i++) sums[i % total] += sums[i];
        write_filters(w + group * p->w_size, sums, n, p);
        memcpy(bias + group * n->outputs, sums + size, n->outputs * sizeof(REAL));
    }
    free(totals);
}
