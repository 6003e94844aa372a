package localize

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/credentials"
	"github.com/mammoth-os/mammoth/internal/distribution"
)

// wanted is a blob or manifest, and the repository to ask for it.
type wanted struct {
	repository string
	digest     digest.Digest
	manifest   bool
}

// source is somewhere that blobs come from. Fetch gives the content from offset on; at says where it really
// begins, which is 0 for a source that cannot resume. It fails with errdefs.ErrNotFound for what the source does
// not have, and errdefs.ErrUnavailable when asking again may help.
type source interface {
	Fetch(ctx context.Context, what wanted, offset int64) (content io.ReadCloser, at int64, err error)
}

// flight is one fetch that everybody waits for who wants the same. It goes on as long as somebody waits.
type flight struct {
	done    chan struct{}
	err     error
	waiters int
	cancel  context.CancelFunc
}

const (
	// attempts is how often a fetch is tried, and mismatches how often content that does not match is fetched anew.
	attempts   = 6
	mismatches = 3
	// stallAfter is how long a transfer may stand still.
	stallAfter = 30 * time.Second
)

// open opens a blob, and fetches it first if it is not here.
func (r *Registry) open(ctx context.Context, what wanted) (*os.File, error) {
	if what.digest.Algorithm() != digest.SHA256 {
		return nil, fmt.Errorf("%s is not a sha256 digest: %w", what.digest, errdefs.ErrInvalidArgument)
	}
	for {
		file, err := r.cache.open(what.digest)
		switch {
		case err == nil:
			return file, nil
		case errors.Is(err, errdefs.ErrDataLoss):
			r.log.Warn("a kept layer was damaged and is fetched anew", "digest", what.digest.String(), "error", err)
		case !errors.Is(err, errdefs.ErrNotFound):
			return nil, err
		}
		if err := r.fetched(ctx, what); err != nil {
			return nil, err
		}
	}
}

// fetched waits until a blob has been fetched by whoever does it.
func (r *Registry) fetched(ctx context.Context, what wanted) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return fmt.Errorf("the node's registry is shutting down: %w", errdefs.ErrUnavailable)
	}
	f := r.flights[what.digest]
	if f == nil {
		own, cancel := context.WithCancel(r.edges)
		f = &flight{done: make(chan struct{}), cancel: cancel}
		r.flights[what.digest] = f
		r.fetching.Go(func() { r.fly(own, what, f) })
	}
	f.waiters++
	r.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.waiters--; f.waiters == 0 {
		f.cancel()
		if r.flights[what.digest] == f {
			delete(r.flights, what.digest) // who comes now begins anew, behind it
		}
	}
	return context.Cause(ctx)
}

func (r *Registry) fly(ctx context.Context, what wanted, f *flight) {
	err := r.fetch(ctx, what)
	f.cancel()
	r.mu.Lock()
	if r.flights[what.digest] == f {
		delete(r.flights, what.digest)
	}
	f.err = err
	r.mu.Unlock()
	close(f.done)
}

// fetch brings a blob into the cache. An earlier flight may have done so since whoever wants it looked there.
func (r *Registry) fetch(ctx context.Context, what wanted) error {
	if _, err := os.Stat(r.cache.path(what.digest)); err == nil {
		return nil
	}
	pace := backoff.Policy{Min: 100 * time.Millisecond, Max: 2 * time.Second}
	var last error
	for failures, wrong := 0, 0; failures < attempts; {
		last = r.fetchOnce(ctx, what)
		if last == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("the fetch of %s was called off: %w", what.digest, errdefs.ErrUnavailable)
		}
		switch {
		case errors.Is(last, errdefs.ErrDataLoss):
			if wrong++; wrong == mismatches {
				return last
			}
		case !errors.Is(last, errdefs.ErrUnavailable):
			return last
		}
		failures++
		r.log.Warn("a fetch failed and is tried again", "digest", what.digest.String(), "repository", what.repository, "failures", failures, "error", last)
		if backoff.Sleep(ctx, pace.After(failures)) != nil {
			return last
		}
	}
	return last
}

// fetchOnce asks each source once. What was received before a connection broke stays for the next try.
func (r *Registry) fetchOnce(ctx context.Context, what wanted) error {
	path := r.cache.path(what.digest) + partialSuffix
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return full(fmt.Errorf("keep %s: %w", what.digest, err))
	}
	defer func() { _ = file.Close() }()
	// A flight that was called off may still be at work on the same file.
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("%s is being fetched already: %w", what.digest, errdefs.ErrUnavailable)
	}
	for _, from := range r.sources {
		if err = r.receive(ctx, what, from, file); err == nil {
			return r.keep(what, file, path)
		}
	}
	if !errors.Is(err, errdefs.ErrUnavailable) {
		_ = os.Remove(path)
	}
	return err
}

// receive appends to file what a source has, and checks the whole.
func (r *Registry) receive(ctx context.Context, what wanted, from source, file *os.File) error {
	sum := sha256.New()
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	offset, err := io.Copy(sum, file)
	if err != nil {
		return fmt.Errorf("read what was received of %s: %w", what.digest, err)
	}
	if offset > 0 && digest.NewDigest(digest.SHA256, sum) == what.digest {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	content, at, err := from.Fetch(ctx, what, offset)
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }()
	if at != offset {
		if err := rewind(file, sum, at); err != nil {
			return err
		}
	}
	guard := time.AfterFunc(stallAfter, func() { cancel(errStalled) })
	defer guard.Stop()
	counted := &arrival{of: content, guard: guard, count: func(n int64) { r.count(what.digest, n) }}
	if what.manifest {
		counted.limit = maxManifest
	}
	if _, err := io.Copy(io.MultiWriter(file, sum), counted); err != nil {
		if errors.Is(context.Cause(ctx), errStalled) {
			err = errStalled
		}
		if disk := full(err); errors.Is(disk, errdefs.ErrResourceExhausted) || errors.Is(err, errdefs.ErrInvalidArgument) {
			return fmt.Errorf("fetch %s: %w", what.digest, disk)
		}
		return fmt.Errorf("fetch %s: %w: %w", what.digest, err, errdefs.ErrUnavailable)
	}
	if got := digest.NewDigest(digest.SHA256, sum); got != what.digest {
		return fmt.Errorf("what was received for %s has the digest %s: %w", what.digest, got, errdefs.ErrDataLoss)
	}
	return nil
}

var errStalled = fmt.Errorf("nothing arrived for %v", stallAfter)

// rewind makes file as long as at, which only a source that begins anew asks for.
func rewind(file *os.File, sum hash.Hash, at int64) error {
	if at != 0 {
		return fmt.Errorf("the source answered with byte %d, which was not asked for: %w", at, errdefs.ErrUnavailable)
	}
	sum.Reset()
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.Seek(0, io.SeekStart)
	return err
}

// keep makes what was received a blob of the cache.
func (r *Registry) keep(what wanted, file *os.File, path string) error {
	if err := os.Rename(path, r.cache.path(what.digest)); err != nil {
		return fmt.Errorf("keep %s: %w", what.digest, err)
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	r.cache.add(what.digest.Encoded(), info)
	return nil
}

// full turns a full disk into an error of the taxonomy.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("the node's disk is full: %w", errdefs.ErrResourceExhausted)
	}
	return err
}

// arrival counts what arrives, bounds it, and keeps the guard from biting.
type arrival struct {
	of    io.Reader
	guard *time.Timer
	count func(int64)
	limit int64 // 0 is none
	read  int64
}

func (a *arrival) Read(p []byte) (int, error) {
	n, err := a.of.Read(p)
	if n > 0 {
		a.guard.Reset(stallAfter)
		a.count(int64(n))
	}
	if a.read += int64(n); a.limit > 0 && a.read > a.limit {
		return n, fmt.Errorf("it has more than %d bytes, which no manifest has: %w", a.limit, errdefs.ErrInvalidArgument)
	}
	return n, err
}

// upstream is the zone's image store.
type upstream struct {
	address string
	client  *http.Client
}

func newUpstream(address string) *upstream {
	transport := credentials.Transport()
	transport.ResponseHeaderTimeout = 30 * time.Second
	return &upstream{address: address, client: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

var manifestTypes = strings.Join([]string{
	distribution.MediaTypeManifest, distribution.MediaTypeManifestList, distribution.MediaTypeOCIManifest, distribution.MediaTypeOCIIndex,
}, ", ")

// Fetch implements source.
func (u *upstream) Fetch(ctx context.Context, what wanted, offset int64) (io.ReadCloser, int64, error) {
	kind := "blobs"
	if what.manifest {
		kind, offset = "manifests", 0
	}
	url := fmt.Sprintf("http://%s/v2/%s/%s/%s", u.address, what.repository, kind, what.digest)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if what.manifest {
		request.Header.Set("Accept", manifestTypes)
	}
	if offset > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	response, err := u.client.Do(request)
	if err != nil {
		return nil, 0, fmt.Errorf("the image store at %s does not answer: %w: %w", u.address, err, errdefs.ErrUnavailable)
	}
	switch response.StatusCode {
	case http.StatusOK:
		return response.Body, 0, nil
	case http.StatusPartialContent:
		at, err := rangeStart(response.Header.Get("Content-Range"))
		if err == nil {
			return response.Body, at, nil
		}
		_ = response.Body.Close()
		return nil, 0, err
	}
	_ = response.Body.Close()
	name := what.repository + "@" + what.digest.String()
	switch {
	case response.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		// What is here is longer than what is there, so it cannot be a part of it.
		return nil, 0, fmt.Errorf("what was received of %s is not a part of it: %w", name, errdefs.ErrDataLoss)
	case response.StatusCode == http.StatusNotFound:
		return nil, 0, fmt.Errorf("the image store has no %s: %w", name, errdefs.ErrNotFound)
	case response.StatusCode >= 500 || response.StatusCode == http.StatusTooManyRequests:
		return nil, 0, fmt.Errorf("the image store answered %s for %s: %w", response.Status, name, errdefs.ErrUnavailable)
	}
	return nil, 0, fmt.Errorf("the image store answered %s for %s: %w", response.Status, name, errdefs.ErrFailedPrecondition)
}

// rangeStart is the first byte of a Content-Range.
func rangeStart(header string) (int64, error) {
	span, ok := strings.CutPrefix(header, "bytes ")
	first, _, dash := strings.Cut(span, "-")
	at, err := strconv.ParseInt(first, 10, 64)
	if !ok || !dash || err != nil || at < 0 {
		return 0, fmt.Errorf("the image store answered with the range %q: %w", header, errdefs.ErrUnavailable)
	}
	return at, nil
}
