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

// blob is a blob or manifest, and the repository to fetch it from.
type blob struct {
	repository string
	digest     digest.Digest
	manifest   bool
}

// source is where blobs come from. Fetch returns the content from offset on; at is where it really begins, which is 0 for a
// source that cannot resume. It fails with errdefs.ErrNotFound for what the source does not have, and with
// errdefs.ErrUnavailable when a later attempt may succeed.
type source interface {
	Fetch(ctx context.Context, what blob, offset int64) (content io.ReadCloser, at int64, err error)
}

// fetchGroup is one fetch of a blob for all its waiters. It is cancelled when nobody waits.
type fetchGroup struct {
	done    chan struct{}
	err     error
	waiters int
	cancel  context.CancelFunc
}

const (
	// maxAttempts is how often a fetch is tried, and maxMismatches how often content with a wrong digest is fetched again.
	maxAttempts   = 6
	maxMismatches = 3
	// stallTimeout is how long a transfer may receive nothing.
	stallTimeout = 30 * time.Second
)

// open opens a blob, and fetches it first if it is not cached.
func (r *Registry) open(ctx context.Context, what blob) (*os.File, error) {
	if what.digest.Algorithm() != digest.SHA256 {
		return nil, fmt.Errorf("%s is not a sha256 digest: %w", what.digest, errdefs.ErrInvalidArgument)
	}
	for {
		file, err := r.cache.open(what.digest)
		switch {
		case err == nil:
			return file, nil
		case errors.Is(err, errdefs.ErrDataLoss):
			r.log.Warn("a cached layer is damaged and is fetched again", "digest", what.digest.String(), "error", err)
		case !errors.Is(err, errdefs.ErrNotFound):
			return nil, err
		}
		if err := r.await(ctx, what); err != nil {
			return nil, err
		}
	}
}

// await waits for the fetch of a blob, and starts it if it is not in progress.
func (r *Registry) await(ctx context.Context, what blob) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return fmt.Errorf("the node's registry is shutting down: %w", errdefs.ErrUnavailable)
	}
	f := r.fetches[what.digest]
	if f == nil {
		own, cancel := context.WithCancel(r.edges)
		f = &fetchGroup{done: make(chan struct{}), cancel: cancel}
		r.fetches[what.digest] = f
		r.goroutines.Go(func() { r.run(own, what, f) })
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
		if r.fetches[what.digest] == f {
			delete(r.fetches, what.digest) // a later caller starts a new one
		}
	}
	return context.Cause(ctx)
}

func (r *Registry) run(ctx context.Context, what blob, f *fetchGroup) {
	err := r.fetch(ctx, what)
	f.cancel()
	r.mu.Lock()
	if r.fetches[what.digest] == f {
		delete(r.fetches, what.digest)
	}
	f.err = err
	r.mu.Unlock()
	close(f.done)
}

// fetch fetches a blob into the cache, unless an earlier fetch has stored it since the caller looked.
func (r *Registry) fetch(ctx context.Context, what blob) error {
	if _, err := os.Stat(r.cache.path(what.digest)); err == nil {
		return nil
	}
	pace := backoff.Policy{Min: 100 * time.Millisecond, Max: 2 * time.Second}
	var last error
	for failures, wrong := 0, 0; failures < maxAttempts; {
		last = r.fetchOnce(ctx, what)
		if last == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("the fetch of %s was cancelled: %w", what.digest, errdefs.ErrUnavailable)
		}
		switch {
		case errors.Is(last, errdefs.ErrDataLoss):
			if wrong++; wrong == maxMismatches {
				return last
			}
		case !errors.Is(last, errdefs.ErrUnavailable):
			return last
		}
		failures++
		r.log.Warn("a fetch failed and is repeated", "digest", what.digest.String(), "repository", what.repository, "failures", failures, "error", last)
		if backoff.Sleep(ctx, pace.After(failures)) != nil {
			return last
		}
	}
	return last
}

// fetchOnce asks each source once. What was received before a connection broke is kept for the next attempt.
func (r *Registry) fetchOnce(ctx context.Context, what blob) error {
	path := r.cache.path(what.digest) + partialSuffix
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return full(fmt.Errorf("store %s: %w", what.digest, err))
	}
	defer func() { _ = file.Close() }()
	// A cancelled fetch may still use the same file.
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

// receive appends a source's content to the file and checks the digest.
func (r *Registry) receive(ctx context.Context, what blob, from source, file *os.File) error {
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
	guard := time.AfterFunc(stallTimeout, func() { cancel(errStalled) })
	defer guard.Stop()
	counted := &meteredReader{of: content, guard: guard, count: func(n int64) { r.count(what.digest, n) }}
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

var errStalled = fmt.Errorf("nothing arrived for %v", stallTimeout)

// rewind empties the file for a source that starts from the beginning. A source that starts elsewhere is an error.
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

// keep moves a complete file into the cache.
func (r *Registry) keep(what blob, file *os.File, path string) error {
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

// full classifies the error of a full disk.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("the node's disk is full: %w", errdefs.ErrResourceExhausted)
	}
	return err
}

// meteredReader counts and limits what is read, and resets the stall timer.
type meteredReader struct {
	of    io.Reader
	guard *time.Timer
	count func(int64)
	limit int64 // 0 is none
	read  int64
}

func (a *meteredReader) Read(p []byte) (int, error) {
	n, err := a.of.Read(p)
	if n > 0 {
		a.guard.Reset(stallTimeout)
		a.count(int64(n))
	}
	if a.read += int64(n); a.limit > 0 && a.read > a.limit {
		return n, fmt.Errorf("it has more than %d bytes, which is too long for a manifest: %w", a.limit, errdefs.ErrInvalidArgument)
	}
	return n, err
}

// upstream is the zone's image store.
type upstream struct {
	address string
	client  *http.Client
}

func newUpstream(address string) *upstream {
	transport := credentials.Transport(address)
	transport.ResponseHeaderTimeout = 30 * time.Second
	return &upstream{address: credentials.FirstAddress(address), client: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

var manifestTypes = strings.Join([]string{
	distribution.MediaTypeManifest, distribution.MediaTypeManifestList, distribution.MediaTypeOCIManifest, distribution.MediaTypeOCIIndex,
}, ", ")

// Fetch implements source.
func (u *upstream) Fetch(ctx context.Context, what blob, offset int64) (io.ReadCloser, int64, error) {
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
		// The local part is longer than the blob, so it cannot be a part of it.
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
