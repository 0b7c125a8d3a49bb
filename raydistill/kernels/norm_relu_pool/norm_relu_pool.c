/* Instance norm, ReLU and 2x2 average pooling in one, with the first and second derivative.

   Shapes: y [I, H, W, C] are images of G networks in turn, I = G * B; gain and bias [G, C]; mean, rstd and all sums of
   an image [I, C]; outputs z and their gradient g [I, H / 2, W / 2, C]. The lanes of a vector are channels, so a plane
   of 16 channels is read two or three times from the cache and once from memory. Each plane is one thread's, so that
   the number of threads changes no bit.

   With n pixels in a plane, x = (y - mean) * rstd, and e = g / 4 where gain * x + bias > 0 and 0 elsewhere, the gradient
   is dgain = sum(e x), dbias = sum(e), dy = gain * rstd * (e - mean(e) - x mean(e x)). */
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

typedef REAL vector __attribute__((vector_size(64)));
typedef INT mask __attribute__((vector_size(64)));
typedef REAL vector_anywhere __attribute__((vector_size(64), aligned(sizeof(REAL)), may_alias));
enum { LANES = 64 / sizeof(REAL) };

typedef struct {
    long groups, batch, height, width, channels;
    double epsilon;
} Size;

INLINE vector load(const REAL *at, const long lanes) {
    if (lanes == LANES) return *(const vector_anywhere *)at;
    vector v = {0};
    for (long i = 0; i < lanes; i++) v[i] = at[i];
    return v;
}

INLINE void store(REAL *at, vector v, const long lanes) {
    if (lanes == LANES) *(vector_anywhere *)at = v;
    else
        for (long i = 0; i < lanes; i++) at[i] = v[i];
}

INLINE vector only(mask where, vector v) { return (vector)(where & (mask)v); }

INLINE vector inverse_root(vector v) {
    for (int i = 0; i < LANES; i++) v[i] = 1 / (sizeof(REAL) == 4 ? __builtin_sqrtf(v[i]) : __builtin_sqrt(v[i]));
    return v;
}

/* What a function for one plane gets: pointers to its first numbers, and the statistics of its lanes. */
typedef struct {
    const REAL *y, *g, *u;
    REAL *z, *dy, *dg;
    vector gain, bias, mean, rstd, to_gain, to_bias;
} Plane;

#define EACH_PIXEL(at) for (long at = 0, end = n->height * n->width * n->channels; at < end; at += n->channels)
/* `cell` counts windows and `corner` is the place of the window's first pixel */
#define EACH_WINDOW(cell, corner)                                                                  \
    for (long row = 0, cell = 0; row < n->height / 2; row++)                                       \
        for (long column = 0, corner = 2 * row * n->width * n->channels; column < n->width / 2;    \
             column++, corner += 2 * n->channels, cell += n->channels)
#define EACH_CORNER(at, corner)                                                                    \
    for (long k = 0, at = corner; k < 4;                                                           \
         k++, at = corner + (k / 2) * n->width * n->channels + (k % 2) * n->channels)

INLINE void forward_plane(Plane *p, const Size *n, const long lanes) {
    const REAL pixels = n->height * n->width;
    vector sum = {0}, squares = {0};
    EACH_PIXEL(at) sum += load(p->y + at, lanes);
    p->mean = sum / pixels;
    EACH_PIXEL(at) {
        const vector centred = load(p->y + at, lanes) - p->mean;
        squares += centred * centred;
    }
    p->rstd = inverse_root(squares / pixels + (REAL)n->epsilon);
    const vector scale = p->gain * p->rstd, shift = p->bias - p->mean * scale;
    EACH_WINDOW(cell, corner) {
        vector total = {0};
        EACH_CORNER(at, corner) {
            const vector value = load(p->y + at, lanes) * scale + shift;
            total += only(~(value <= 0), value); /* NaN passes */
        }
        store(p->z + cell, total / 4, lanes);
    }
}

/* the pixels beyond the last whole window, where no gradient arrives */
#define EACH_PIXEL_BEYOND(at)                                                                      \
    for (long row = 0; row < n->height; row++)                                                     \
        for (long column = row < n->height / 2 * 2 ? n->width / 2 * 2 : 0,                         \
                  at = (row * n->width + column) * n->channels; column < n->width;                 \
             column++, at += n->channels)

/* Returns dgain in to_gain and dbias in to_bias. */
INLINE void backward_plane(Plane *p, const Size *n, const long lanes) {
    const REAL pixels = n->height * n->width;
    vector sum = {0}, along = {0};
    EACH_WINDOW(cell, corner) {
        const vector e = load(p->g + cell, lanes) / 4;
        EACH_CORNER(at, corner) {
            const vector x = (load(p->y + at, lanes) - p->mean) * p->rstd;
            const vector here = only(p->gain * x + p->bias > 0, e);
            sum += here, along += here * x;
        }
    }
    p->to_bias = sum, p->to_gain = along;
    const vector scale = p->gain * p->rstd;
    sum /= pixels, along /= pixels;
    EACH_WINDOW(cell, corner) {
        const vector e = load(p->g + cell, lanes) / 4;
        EACH_CORNER(at, corner) {
            const vector x = (load(p->y + at, lanes) - p->mean) * p->rstd;
            store(p->dy + at, scale * (only(p->gain * x + p->bias > 0, e) - sum - x * along), lanes);
        }
    }
    EACH_PIXEL_BEYOND(at) {
        const vector x = (load(p->y + at, lanes) - p->mean) * p->rstd;
        store(p->dy + at, scale * (-sum - x * along), lanes);
    }
}

/* The derivative of <u, dy> + <to_gain, dgain> + <to_bias, dbias> for g, y and gain; returns that for gain in to_gain.

   With means over the plane, A = mean(u e) - mean(u) mean(e) - mean(u x) mean(e x) and r = gain * rstd, it is
   for e      r * (u - mean(u) - x mean(u x)) + to_gain * x + to_bias
   for gain   n * rstd * A
   for x      E = -r * (u mean(e x) + e mean(u x)) + to_gain * e, where rstd counts as a constant
   for y      rstd * (E - mean(E) - x mean(E x)) - r * rstd * A * x. */
INLINE void second_plane(Plane *p, const Size *n, const long lanes) {
    const REAL pixels = n->height * n->width;
    vector u = {0}, ux = {0}, e = {0}, ex = {0}, ue = {0};
    EACH_PIXEL(at) {
        const vector here = load(p->u + at, lanes), x = (load(p->y + at, lanes) - p->mean) * p->rstd;
        u += here, ux += here * x;
    }
    EACH_WINDOW(cell, corner) {
        const vector quarter = load(p->g + cell, lanes) / 4;
        EACH_CORNER(at, corner) {
            const vector x = (load(p->y + at, lanes) - p->mean) * p->rstd;
            const vector here = only(p->gain * x + p->bias > 0, quarter);
            e += here, ex += here * x, ue += here * load(p->u + at, lanes);
        }
    }
    u /= pixels, ux /= pixels, e /= pixels, ex /= pixels, ue /= pixels;
    const vector r = p->gain * p->rstd, to_gain = p->to_gain, to_bias = p->to_bias, a = ue - u * e - ux * ex;
    const vector mean = -r * (u * ex + e * ux) + to_gain * e, along = -r * (2 * ux * ex) + to_gain * ex + r * a;
    p->to_gain = a * p->rstd * pixels;
    EACH_WINDOW(cell, corner) {
        const vector quarter = load(p->g + cell, lanes) / 4;
        vector total = {0};
        EACH_CORNER(at, corner) {
            const vector v = load(p->u + at, lanes), x = (load(p->y + at, lanes) - p->mean) * p->rstd;
            const mask positive = p->gain * x + p->bias > 0;
            const vector here = only(positive, quarter), big = -r * (v * ex + here * ux) + to_gain * here;
            total += only(positive, r * (v - u - x * ux) + to_gain * x + to_bias);
            store(p->dy + at, p->rstd * (big - mean - x * along), lanes);
        }
        store(p->dg + cell, total / 4, lanes);
    }
    EACH_PIXEL_BEYOND(at) {
        const vector x = (load(p->y + at, lanes) - p->mean) * p->rstd;
        store(p->dy + at, p->rstd * (-r * load(p->u + at, lanes) * ex - mean - x * along), lanes);
    }
}

/* Run a block for each plane of up to LANES channels, which knows their number when compiled where it is LANES. */
#define EACH_PLANE(...)                                                                            \
    const long whole = n->height * n->width * n->channels;                                         \
    const long pooled = (n->height / 2) * (n->width / 2) * n->channels, images = n->groups * n->batch; \
    _Pragma("omp parallel for if (images * whole > 20000)") for (long i = 0; i < images; i++)      \
        for (long c = 0; c < n->channels; c += LANES) {                                            \
            const long big = i * whole + c, small = i * pooled + c, own = i * n->channels + c;     \
            const long net = i / n->batch * n->channels + c;                                       \
            if (n->channels - c >= LANES) {                                                        \
                const long lanes = LANES;                                                          \
                __VA_ARGS__                                                                        \
            } else {                                                                               \
                const long lanes = n->channels - c;                                                \
                __VA_ARGS__                                                                        \
            }                                                                                      \
        }

void forward(const REAL *y, const REAL *gain, const REAL *bias, REAL *z, REAL *mean, REAL *rstd, const Size *n) {
    EACH_PLANE({
        Plane p = {.y = y + big, .z = z + small, .gain = load(gain + net, lanes), .bias = load(bias + net, lanes)};
        forward_plane(&p, n, lanes);
        store(mean + own, p.mean, lanes), store(rstd + own, p.rstd, lanes);
    })
}

#define STATISTICS                                                                                 \
    .gain = load(gain + net, lanes), .bias = load(bias + net, lanes), .mean = load(mean + own, lanes), \
    .rstd = load(rstd + own, lanes)

void backward(const REAL *g, const REAL *y, const REAL *gain, const REAL *bias, const REAL *mean, const REAL *rstd,
              REAL *dy, REAL *dgain, REAL *dbias, const Size *n) {
    EACH_PLANE({
        Plane p = {.g = g + small, .y = y + big, .dy = dy + big, STATISTICS};
        backward_plane(&p, n, lanes);
        store(dgain + own, p.to_gain, lanes), store(dbias + own, p.to_bias, lanes);
    })
}

/* The gradient for dgain and dbias is [G, C]; that for gain comes out of each image, [I, C]. */
void second(const REAL *u, const REAL *to_gain, const REAL *to_bias, const REAL *g, const REAL *y, const REAL *gain,
            const REAL *bias, const REAL *mean, const REAL *rstd, REAL *dg, REAL *dy, REAL *dgain, const Size *n) {
    EACH_PLANE({
        Plane p = {.u = u + big, .g = g + small, .y = y + big, .dg = dg + small, .dy = dy + big, STATISTICS,
                   .to_gain = load(to_gain + net, lanes), .to_bias = load(to_bias + net, lanes)};
        second_plane(&p, n, lanes);
        store(dgain + own, p.to_gain, lanes);
    })
}
