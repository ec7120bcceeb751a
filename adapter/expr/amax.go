package expr

// amax computes the grid of scales of a quantizer.
type amax struct {
	header
	by *quantizer
}

func (n *amax) rect(env *Env, dst []byte, stride int, w window) error {
	s := getFloats(w.rows() * w.cols())
	defer s.put()
	if n.by.ones {
		for i := range s.values {
			s.values[i] = 1
		}
	} else if err := n.by.gather(env, s.values, w); err != nil {
		return err
	}
	for r := range w.rows() {
		putFloats(dst[r*stride:], s.values[r*w.cols():][:w.cols()])
	}
	return nil
}

func (n *amax) needs(_ window, d demand) bool { return n.by.needs(d) }

func (n *amax) transpose() (node, error) { return newTranspose(n) }

func (n *amax) slice(axis int, lo, hi int64) (node, error) { return newSlice(n, axis, lo, hi) }

func (n *amax) index(i int64) (node, error) { return indexed(n, i) }

func (n *amax) String() string { return n.by.name("scales") }
