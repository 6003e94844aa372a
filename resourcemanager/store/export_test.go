package store

// OpenSmallBolt opens a store whose journal turns after a few batches, and is too small for some.
func OpenSmallBolt(path string, options Options) (*Bolt, error) {
	return openBolt(path, options, tuning{half: 160, noSync: true})
}
