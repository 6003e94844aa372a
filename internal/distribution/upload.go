package distribution

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// upload answers requests about uploads of blobs. Without an id it starts one.
func (h *handler) upload(w http.ResponseWriter, r *http.Request, repository, id string) {
	if h.writable == nil {
		allow(w, r)
		return
	}
	methods := []string{http.MethodGet, http.MethodHead, http.MethodPatch, http.MethodPut, http.MethodDelete}
	if id == "" {
		methods = []string{http.MethodPost}
	}
	if !allow(w, r, methods...) || !validName(w, repository) {
		return
	}
	switch r.Method {
	case http.MethodPost:
		h.startUpload(w, r, repository)
	case http.MethodPatch:
		if offset, ok := contentOffset(w, r); ok {
			if size, ok := h.appendUpload(w, r, repository, id, offset); ok {
				progress(w, repository, id, size, http.StatusAccepted)
			}
		}
	case http.MethodPut:
		if h.finishBody(w, r, repository, id) {
			h.finishUpload(w, r, repository, id)
		}
	case http.MethodDelete:
		if err := h.writable.CancelUpload(r.Context(), repository, id); err != nil {
			fail(w, err, codeUploadUnknown, codeUploadInvalid)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		size, err := h.writable.UploadSize(r.Context(), repository, id)
		if err != nil {
			fail(w, err, codeUploadUnknown, codeUploadInvalid)
			return
		}
		progress(w, repository, id, size, http.StatusNoContent)
	}
}

// startUpload begins an upload, unless the blob can be mounted from another repository or is in the body.
func (h *handler) startUpload(w http.ResponseWriter, r *http.Request, repository string) {
	query := r.URL.Query()
	if blob, from := digest.Digest(query.Get("mount")), query.Get("from"); blob.Validate() == nil && ValidName(from) {
		err := h.writable.Mount(r.Context(), repository, blob, from)
		if err == nil {
			created(w, repository, blob)
			return
		}
		if !errors.Is(err, errdefs.ErrNotFound) {
			fail(w, err, codeBlobUnknown, codeUploadInvalid)
			return
		}
	}
	id, err := h.writable.StartUpload(r.Context(), repository)
	if err != nil {
		fail(w, err, codeNameUnknown, codeUploadInvalid)
		return
	}
	if !query.Has("digest") {
		progress(w, repository, id, 0, http.StatusAccepted)
		return
	}
	if _, ok := h.appendUpload(w, r, repository, id, 0); ok && h.finishUpload(w, r, repository, id) {
		return
	}
	// The upload's id is unknown to the client, so the upload cannot continue.
	_ = h.writable.CancelUpload(r.Context(), repository, id)
}

func (h *handler) appendUpload(w http.ResponseWriter, r *http.Request, repository, id string, offset int64) (int64, bool) {
	size, err := h.writable.AppendUpload(r.Context(), repository, id, offset, r.Body)
	if err != nil {
		if errors.Is(err, errdefs.ErrOutOfRange) {
			place(w, repository, id, size)
		}
		fail(w, err, codeUploadUnknown, codeUploadInvalid)
		return 0, false
	}
	return size, true
}

// finishBody appends the last chunk, which may be in the request that ends the upload.
func (h *handler) finishBody(w http.ResponseWriter, r *http.Request, repository, id string) bool {
	if r.ContentLength == 0 {
		return true
	}
	offset, ok := contentOffset(w, r)
	if !ok {
		return false
	}
	_, ok = h.appendUpload(w, r, repository, id, offset)
	return ok
}

func (h *handler) finishUpload(w http.ResponseWriter, r *http.Request, repository, id string) bool {
	want := digest.Digest(r.URL.Query().Get("digest"))
	if err := want.Validate(); err != nil {
		refuse(w, http.StatusBadRequest, codeDigestInvalid, fmt.Sprintf("%q is not a digest: %v", want, err))
		return false
	}
	if err := h.writable.FinishUpload(r.Context(), repository, id, want); err != nil {
		fail(w, err, codeUploadUnknown, codeDigestInvalid)
		return false
	}
	created(w, repository, want)
	return true
}

func created(w http.ResponseWriter, repository string, blob digest.Digest) {
	w.Header().Set("Docker-Content-Digest", blob.String())
	w.Header().Set("Location", "/v2/"+repository+"/blobs/"+blob.String())
	w.WriteHeader(http.StatusCreated)
}

// progress answers where the upload continues.
func progress(w http.ResponseWriter, repository, id string, size int64, status int) {
	place(w, repository, id, size)
	w.WriteHeader(status)
}

func place(w http.ResponseWriter, repository, id string, size int64) {
	w.Header().Set("Docker-Upload-Uuid", id)
	w.Header().Set("Location", "/v2/"+repository+"/blobs/uploads/"+id)
	// The range is inclusive, so that zero bytes and one byte look the same; clients accept that.
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(size-1, 0)))
}

// contentOffset is the offset of the body: Content-Range is "FIRST-LAST" in this API, without a unit. Without the header it
// is -1: at the end.
func contentOffset(w http.ResponseWriter, r *http.Request) (int64, bool) {
	header := r.Header.Get("Content-Range")
	if header == "" {
		return -1, true
	}
	from, to, _ := strings.Cut(header, "-")
	first, err := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	if err != nil || err2 != nil || first < 0 || last < first-1 || r.ContentLength >= 0 && r.ContentLength != last-first+1 {
		refuse(w, http.StatusRequestedRangeNotSatisfiable, codeUploadInvalid, fmt.Sprintf("the range %q does not fit the content", header))
		return 0, false
	}
	return first, true
}
