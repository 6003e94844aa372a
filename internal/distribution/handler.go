package distribution

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// maxManifest is the largest manifest; the specification requires at least 4 MiB.
const maxManifest = 4 << 20

type handler struct {
	store Store
	// writable is nil for a store that can only be read.
	writable WritableStore
}

// ServeHTTP finds the route from the end of the path, since a repository's name may contain slashes.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	path, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	if path == "" || r.URL.Path == "/v2" {
		h.base(w, r)
		return
	}
	if !ok {
		refuse(w, http.StatusNotFound, codeUnsupported, "the registry's API is under /v2/")
		return
	}
	parts := strings.Split(path, "/")
	n := len(parts)
	name := func(without int) string { return strings.Join(parts[:max(n-without, 0)], "/") }
	switch {
	case n > 3 && parts[n-3] == "blobs" && parts[n-2] == "uploads":
		h.upload(w, r, name(3), parts[n-1])
	case n > 2 && parts[n-2] == "blobs" && parts[n-1] == "uploads":
		h.upload(w, r, name(2), "")
	case n > 2 && parts[n-2] == "blobs":
		h.blob(w, r, name(2), parts[n-1])
	case n > 2 && parts[n-2] == "manifests":
		h.manifest(w, r, name(2), parts[n-1])
	case n > 2 && parts[n-2] == "tags" && parts[n-1] == "list":
		h.tags(w, r, name(2))
	default:
		refuse(w, http.StatusNotFound, codeUnsupported, fmt.Sprintf("the registry has nothing at %s", r.URL.Path))
	}
}

func (h *handler) base(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, http.MethodGet, http.MethodHead) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}")
}

func (h *handler) manifest(w http.ResponseWriter, r *http.Request, repository, reference string) {
	if !h.allowWrites(w, r, http.MethodPut, http.MethodDelete) || !validName(w, repository) {
		return
	}
	sum := digest.Digest(reference)
	if sum.Validate() != nil {
		sum = ""
		if !ValidTag(reference) {
			refuse(w, http.StatusBadRequest, codeManifestInvalid, fmt.Sprintf("%q is neither a tag nor a digest", reference))
			return
		}
	}
	switch r.Method {
	case http.MethodPut:
		h.putManifest(w, r, repository, reference)
	case http.MethodDelete:
		if err := h.writable.DeleteManifest(r.Context(), repository, reference); err != nil {
			fail(w, err, codeManifestUnknown, codeManifestInvalid)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	default:
		manifest, err := h.store.Manifest(r.Context(), repository, reference)
		if err != nil {
			fail(w, err, codeManifestUnknown, codeManifestInvalid)
			return
		}
		serve(w, r, manifest.Digest, manifest.MediaType, bytes.NewReader(manifest.Content))
	}
}

func (h *handler) putManifest(w http.ResponseWriter, r *http.Request, repository, reference string) {
	content, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxManifest))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		refuse(w, http.StatusRequestEntityTooLarge, codeManifestInvalid, "the manifest is larger than 4 MiB")
		return
	} else if err != nil {
		refuse(w, http.StatusBadRequest, codeManifestInvalid, "the manifest did not arrive completely: "+err.Error())
		return
	}
	mediaType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	manifest := Manifest{Digest: digest.FromBytes(content), MediaType: strings.TrimSpace(mediaType), Content: content}
	if want := digest.Digest(reference); want.Validate() == nil && want != manifest.Digest {
		refuse(w, http.StatusBadRequest, codeDigestInvalid, fmt.Sprintf("the manifest's digest is %s, not %s", manifest.Digest, want))
		return
	}
	if err := h.writable.PutManifest(r.Context(), repository, reference, manifest); err != nil {
		fail(w, err, codeManifestBlobUnknown, codeManifestInvalid)
		return
	}
	w.Header().Set("Docker-Content-Digest", manifest.Digest.String())
	w.Header().Set("Location", "/v2/"+repository+"/manifests/"+manifest.Digest.String())
	w.WriteHeader(http.StatusCreated)
}

// blob answers reads. Blobs are not deleted one by one: the store deletes those without a manifest.
func (h *handler) blob(w http.ResponseWriter, r *http.Request, repository, reference string) {
	if !allow(w, r, http.MethodGet, http.MethodHead) || !validName(w, repository) {
		return
	}
	sum := digest.Digest(reference)
	if err := sum.Validate(); err != nil {
		refuse(w, http.StatusBadRequest, codeDigestInvalid, fmt.Sprintf("%q is not a digest: %v", reference, err))
		return
	}
	if r.Method == http.MethodHead {
		size, err := h.store.BlobSize(r.Context(), repository, sum)
		if err != nil {
			fail(w, err, codeBlobUnknown, codeDigestInvalid)
			return
		}
		describe(w, sum, "application/octet-stream")
		w.Header().Set("Accept-Ranges", "bytes")
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		return
	}
	blob, err := h.store.Blob(r.Context(), repository, sum)
	if err != nil {
		fail(w, err, codeBlobUnknown, codeDigestInvalid)
		return
	}
	defer blob.Close()
	serve(w, r, sum, "application/octet-stream", blob)
}

// serve answers GET and HEAD, completely or a range.
func serve(w http.ResponseWriter, r *http.Request, sum digest.Digest, mediaType string, content io.ReadSeeker) {
	describe(w, sum, mediaType)
	http.ServeContent(w, r, "", time.Time{}, content)
}

func describe(w http.ResponseWriter, sum digest.Digest, mediaType string) {
	w.Header().Set("Docker-Content-Digest", sum.String())
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Etag", strconv.Quote(sum.String()))
}

func (h *handler) tags(w http.ResponseWriter, r *http.Request, repository string) {
	if h.writable == nil {
		refuse(w, http.StatusMethodNotAllowed, codeUnsupported, "this registry does not list tags")
		return
	}
	if !allow(w, r, http.MethodGet, http.MethodHead) || !validName(w, repository) {
		return
	}
	tags, err := h.writable.Tags(r.Context(), repository)
	if err != nil {
		fail(w, err, codeNameUnknown, codeNameInvalid)
		return
	}
	query := r.URL.Query()
	if last := query.Get("last"); last != "" {
		position, found := slices.BinarySearch(tags, last)
		if found {
			position++
		}
		tags = tags[position:]
	}
	if query.Has("n") {
		n, err := strconv.Atoi(query.Get("n"))
		if err != nil || n < 0 {
			refuse(w, http.StatusBadRequest, codeUnsupported, fmt.Sprintf("n=%s is not a count", query.Get("n")))
			return
		}
		if n < len(tags) {
			tags = tags[:n]
			if n > 0 {
				w.Header().Set("Link", fmt.Sprintf("</v2/%s/tags/list?n=%d&last=%s>; rel=\"next\"", repository, n, url.QueryEscape(tags[n-1])))
			}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{repository, append([]string{}, tags...)})
}

// allowWrites refuses methods that the route does not know, and writes when the store is read-only.
func (h *handler) allowWrites(w http.ResponseWriter, r *http.Request, writes ...string) bool {
	if h.writable != nil {
		return allow(w, r, append(writes, http.MethodGet, http.MethodHead)...)
	}
	return allow(w, r, http.MethodGet, http.MethodHead)
}

func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	if slices.Contains(methods, r.Method) {
		return true
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	refuse(w, http.StatusMethodNotAllowed, codeUnsupported, r.Method+" is not possible here")
	return false
}

func validName(w http.ResponseWriter, repository string) bool {
	if ValidName(repository) {
		return true
	}
	refuse(w, http.StatusBadRequest, codeNameInvalid, fmt.Sprintf("%q is not a repository's name", repository))
	return false
}

// statusOf is the HTTP status of an error of the errdefs taxonomy.
func statusOf(err error) int {
	switch {
	case errors.Is(err, errdefs.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, errdefs.ErrInvalidArgument), errors.Is(err, errdefs.ErrFailedPrecondition):
		return http.StatusBadRequest
	case errors.Is(err, errdefs.ErrPermissionDenied):
		return http.StatusForbidden
	case errors.Is(err, errdefs.ErrOutOfRange):
		return http.StatusRequestedRangeNotSatisfiable
	case errors.Is(err, errdefs.ErrResourceExhausted):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, errdefs.ErrUnavailable):
		return http.StatusServiceUnavailable
	case errors.Is(err, errdefs.ErrNotImplemented):
		return http.StatusMethodNotAllowed
	}
	return http.StatusInternalServerError
}
