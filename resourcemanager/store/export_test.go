package store

import "github.com/mammoth-os/mammoth/internal/records"

// OpenSmallFile opens a store whose journal turns after a few batches, and is too small for some.
func OpenSmallFile(dir string, options Options) (*File, error) {
	return openFile(dir, options, records.Options{Segment: 1400, NoSync: true})
}
