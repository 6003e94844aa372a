package localize

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
)

// counting is a source of one text that counts its calls.
type counting struct {
	text  string
	asked atomic.Int64
}

func (c *counting) Fetch(context.Context, blob, int64) (io.ReadCloser, int64, error) {
	c.asked.Add(1)
	return io.NopCloser(strings.NewReader(c.text)), 0, nil
}

// A caller that does not find a blob may continue only after an earlier fetch has stored it.
func TestABlobThatAnEarlierFetchStoredIsNotFetchedAgain(t *testing.T) {
	r, err := New(Config{Dir: t.TempDir(), Upstream: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	defer func() { _ = r.Run(ended) }()
	from := &counting{text: "layer"}
	r.sources = []source{from}
	what := blob{repository: "web", digest: digest.FromString(from.text)}
	for range 2 {
		if err := r.await(t.Context(), what); err != nil {
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
