package localize

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
)

// counting is a source of one text that counts how often it was asked.
type counting struct {
	text  string
	asked atomic.Int64
}

func (c *counting) Fetch(context.Context, wanted, int64) (io.ReadCloser, int64, error) {
	c.asked.Add(1)
	return io.NopCloser(strings.NewReader(c.text)), 0, nil
}

// Whoever finds that a blob is not here may get on only after an earlier flight has brought it.
func TestWhatAnEarlierFlightBroughtIsNotFetchedAgain(t *testing.T) {
	r, err := New(Config{Dir: t.TempDir(), Upstream: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	defer func() { _ = r.Run(ended) }()
	from := &counting{text: "layer"}
	r.sources = []source{from}
	what := wanted{repository: "web", digest: digest.FromString(from.text)}
	for range 2 {
		if err := r.fetched(t.Context(), what); err != nil {
			t.Fatal(err)
		}
	}
	if asked := from.asked.Load(); asked != 1 {
		t.Errorf("it was fetched %d times", asked)
	}
	file, err := r.open(t.Context(), what)
	if err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
}
