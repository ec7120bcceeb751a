package remote

import "time"

// startTicking starts the goroutine that watches the flights. It ends with the last flight.
func (f *fetcher) startTicking() {
	if !f.ticking {
		f.ticking = true
		if f.resting != nil {
			f.resting.Stop()
		}
		f.limit.begin(time.Now(), f.counts.bytes)
		f.group.Go(f.tick)
	}
}

func (f *fetcher) tick() {
	t := time.NewTicker(f.times.tick)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-f.ctx.Done():
			return
		}
		if !f.watch(time.Now()) {
			return
		}
	}
}

// watch looks at all flights, and at the limit. It reports whether there are any flights.
func (f *fetcher) watch(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	usual := f.speeds.usual()
	for fl := range f.flights {
		fl.watch(now, f.times, usual)
	}
	f.limit.step(now, f.counts.bytes)
	f.schedule()
	f.ticking = len(f.flights) > 0
	if !f.ticking {
		f.restLater()
	}
	return f.ticking
}

// restLater frees memory once no request was sent for a while.
func (f *fetcher) restLater() {
	f.resting = time.AfterFunc(2*f.times.stale, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.flights) == 0 {
			f.rest()
		}
	})
}
