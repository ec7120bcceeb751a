package source

// Ahead is a File whose bytes come over a network. The interface is optional: it only makes reading
// faster.
type Ahead interface {
	File

	// Ahead begins to fetch [off, off+n), and returns at once. It reports whether all of the range
	// is in memory, on its way, or was begun. If there is no room it is false.
	Ahead(off, n int64) bool

	// Distance is how many bytes ahead of a reader are worth fetching. It grows with the rate of
	// the store and with the time that an answer takes.
	Distance() int64
}

// Sectioned is a File that fetches and keeps whole sections. The interface is optional.
type Sectioned interface {
	File

	// Cut tells where tensors begin, in order, so that a section holds no tensor that is not asked
	// for. It is called before data is read, and at most once.
	Cut(begins []int64)
}

// Published is a File whose publisher tells a hash of its content. The interface is optional.
type Published interface {
	File

	// SHA256 is the hash in hexadecimal; empty if the publisher does not tell it.
	SHA256() string
}

// Versioned is a File whose store names its versions. The interface is optional.
type Versioned interface {
	File

	// Version changes with the content; empty if the store does not name versions.
	Version() string
}

// Networked is a Store that is read over a network.
type Networked interface {
	Store
	Traffic() Traffic
}

// Authenticated is a Store that may use credentials. The interface is optional.
type Authenticated interface {
	Store

	// Credentials names the credentials and where they are from, without a secret. It is empty if
	// none are used.
	Credentials() string
}

// Traffic counts what was transferred from a store since it was opened.
type Traffic struct {
	Bytes     int64   `json:"bytes"`     // received, of files
	Requests  int64   `json:"requests"`  // sent
	Retries   int64   `json:"retries"`   // of them, for bytes that an earlier one did not bring
	Throttled int64   `json:"throttled"` // answers that asked for fewer requests
	InFlight  int64   `json:"in_flight"` // requests now
	AtOnce    int64   `json:"at_once"`   // requests that may be in flight at once
	Rate      float64 `json:"rate"`      // bytes per second, of the last seconds

	Memory      int64 `json:"memory"`       // bytes of files that are held in memory
	MemoryLimit int64 `json:"memory_limit"` // the most of them

	CacheHits   int64 `json:"cache_hits"`   // blocks found in the disk cache
	CacheMisses int64 `json:"cache_misses"` // blocks not found there
	CacheBytes  int64 `json:"cache_bytes"`  // read from there
}
