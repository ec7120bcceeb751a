package faultproxy

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// Plan says what goes wrong. The zero plan passes everything on.
type Plan struct {
	// Each request is hit with the probability Rate, by one of Kinds; nil: by one of All. What
	// hits it depends on Seed, on method, path and range, and on how often these were asked for.
	// It does not depend on the order of requests.
	Seed  uint64
	Rate  float64
	Kinds []Kind
	// InARow is after how many faults the same request is passed on; 0: no limit. One that
	// continues a body that was cut is the same: its range has the same end.
	InARow int
	// Storm is how many requests a kind of Storms hits, once it hits one; 0: one.
	Storm int
	// Script decides instead of Rate, for the n-th request that matches.
	Script func(n int, r *http.Request) Kind
	// Match picks the requests that can be hit; nil: all.
	Match func(*http.Request) bool

	Delay         time.Duration // before each request is passed on
	PerConnection int64         // bytes per second of one connection; 0: no limit
	Total         int64         // bytes per second of all connections; 0: no limit
	RetryAfter    int           // the seconds that Throttled and Unavailable announce; 0: none
}

// Always is a script that gives every request the same fault.
func Always(k Kind) func(int, *http.Request) Kind {
	return func(int, *http.Request) Kind { return k }
}

// Once is a script that gives the first requests these faults, one each, and no later one.
func Once(kinds ...Kind) func(int, *http.Request) Kind {
	return func(n int, _ *http.Request) Kind {
		if n < len(kinds) {
			return kinds[n]
		}
		return None
	}
}

// decisions is what the proxy knows about earlier requests.
type decisions struct {
	matched int            // requests
	asked   map[string]int // how often, by method, path and range
	inARow  map[string]int // faults, by method, path and end of the range
	storm   Kind
	left    int // requests that the storm still hits
}

// decide gives the fault of a request, and a source of randomness for its details.
func (d *decisions) decide(p *Plan, r *http.Request) (Kind, *rand.Rand) {
	key := r.Method + " " + r.URL.Path + " " + r.Header.Get("Range")
	rng := random(p.Seed, key, d.asked[key])
	d.asked[key]++
	if p.Match != nil && !p.Match(r) {
		return None, rng
	}
	k := d.draw(p, r, rng)
	d.matched++
	_, end, _ := strings.Cut(r.Header.Get("Range"), "-")
	same := r.Method + " " + r.URL.Path + " " + end
	if p.Script == nil && k != None && p.InARow > 0 && d.inARow[same] >= p.InARow {
		k = None
	}
	d.inARow[same]++
	if k == None {
		d.inARow[same] = 0
	}
	return k, rng
}

// draw gives the fault of a request that matches.
func (d *decisions) draw(p *Plan, r *http.Request, rng *rand.Rand) Kind {
	if p.Script != nil {
		return p.Script(d.matched, r)
	}
	if d.left > 0 {
		d.left--
		return d.storm
	}
	kinds := p.Kinds
	if kinds == nil {
		kinds = All
	}
	if rng.Float64() >= p.Rate {
		return None
	}
	k := kinds[rng.IntN(len(kinds))]
	if p.Storm > 1 && Storms[k] {
		d.storm, d.left = k, p.Storm-1
	}
	return k
}

// random gives the same numbers for the same seed and request.
func random(seed uint64, key string, nth int) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprint(h, key, nth)
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}
