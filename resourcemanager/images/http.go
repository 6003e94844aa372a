package images

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/mammoth-os/mammoth/internal/distribution"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

const (
	// offsetHeader is where a chunk belongs, and in answers where the upload continues.
	offsetHeader = "Upload-Offset"
	// idleTimeout is how long the connection of an upload may be idle. The upload itself stays.
	idleTimeout = time.Minute
	// maxDrained is how much of a refused chunk is read and discarded.
	maxDrained = 8 << 20
)

// Handler serves archive uploads under /v1/uploads and the OCI distribution API under /v2/:
//
//	POST   /v1/uploads                       201 {"id", "offset"}
//	PATCH  /v1/uploads/{id}                  Upload-Offset: where the body belongs; 200 {"id", "offset"}; 409 if it does not
//	GET    /v1/uploads/{id}                  200 {"id", "offset"}; HEAD answers with Upload-Offset alone
//	DELETE /v1/uploads/{id}                  204
//	POST   /v1/uploads/{id}/import?name=     200 the image; the name may be left out
//
// Errors are {"code", "message"} with gRPC's codes.
func (s *Store) Handler() http.Handler {
	mux, archives := http.NewServeMux(), archiveUploads{s.uploads, s.Import}
	registry := withIdleTimeout(distribution.NewWritable(s.repositories()))
	mux.Handle("/v2/", registry)
	mux.Handle("/v2", registry)
	mux.HandleFunc("POST /v1/uploads", archives.start)
	mux.HandleFunc("GET /v1/uploads/{id}", archives.offset)
	mux.HandleFunc("PATCH /v1/uploads/{id}", archives.append)
	mux.HandleFunc("DELETE /v1/uploads/{id}", archives.cancel)
	mux.HandleFunc("POST /v1/uploads/{id}/import", archives.finish)
	return mux
}

// archiveUploads serves the uploads of archives.
type archiveUploads struct {
	uploads *uploads
	// importInto imports an archive into the store, as Store.Import does.
	importInto func(ctx context.Context, content io.Reader, name string) (*apiv1.Image, error)
}

func (a archiveUploads) start(w http.ResponseWriter, r *http.Request) {
	id, err := a.uploads.start(r.Context(), "")
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Location", "/v1/uploads/"+id)
	writeOffset(w, http.StatusCreated, id, 0)
}

func (a archiveUploads) offset(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	size, err := a.uploads.size("", id)
	if err != nil {
		writeError(w, err)
		return
	}
	writeOffset(w, http.StatusOK, id, size)
}

func (a archiveUploads) append(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	offset, err := strconv.ParseInt(r.Header.Get(offsetHeader), 10, 64)
	if err != nil || offset < 0 {
		writeError(w, invalid("the header %s must be where the content belongs, but is %q", offsetHeader, r.Header.Get(offsetHeader)))
		return
	}
	u, err := a.uploads.find("", id)
	if err != nil {
		writeError(w, err)
		return
	}
	body := newIdleBody(w, r)
	size, err := a.uploads.append(r.Context(), u, offset, body, body.interrupt)
	if errors.Is(err, errdefs.ErrOutOfRange) {
		w.Header().Set(offsetHeader, strconv.FormatInt(size, 10))
	}
	if errors.Is(err, errdefs.ErrResourceExhausted) {
		// A client that still sends reads the error only if the connection is not reset.
		_, _ = io.CopyN(io.Discard, body, maxDrained)
	}
	if err != nil {
		writeError(w, err)
		return
	}
	writeOffset(w, http.StatusOK, id, size)
}

func (a archiveUploads) cancel(w http.ResponseWriter, r *http.Request) {
	if err := a.uploads.cancel(r.Context(), "", r.PathValue("id")); err != nil {
		writeError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a archiveUploads) finish(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("name")
	if _, err := parseChoice(name); err != nil {
		writeError(w, err)
		return
	}
	image, err := a.uploads.importArchive(r.Context(), r.PathValue("id"), func(ctx context.Context, content io.Reader) (*apiv1.Image, error) {
		return a.importInto(ctx, content, name)
	})
	if err != nil {
		writeError(w, err)
		return
	}
	content, err := protojson.Marshal(image)
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(content)
}

// withIdleTimeout ends requests whose body is idle for too long.
func withIdleTimeout(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		guarded := *r
		guarded.Body = newIdleBody(w, r)
		next.ServeHTTP(w, &guarded)
	})
}

// idleBody is a request's body whose deadline moves with every read.
type idleBody struct {
	body    io.ReadCloser
	control *http.ResponseController

	mu          sync.Mutex
	interrupted bool
}

var errInterrupted = errors.New("another connection took over")

func newIdleBody(w http.ResponseWriter, r *http.Request) *idleBody {
	return &idleBody{body: r.Body, control: http.NewResponseController(w)}
}

func (b *idleBody) Close() error { return b.body.Close() }

func (b *idleBody) Read(p []byte) (int, error) {
	if err := b.setDeadline(time.Now().Add(idleTimeout)); err != nil {
		return 0, err
	}
	n, err := b.body.Read(p)
	if err == io.EOF {
		// The connection may serve more requests.
		_ = b.setDeadline(time.Time{})
	}
	return n, err
}

// setDeadline sets until when the next bytes must arrive.
func (b *idleBody) setDeadline(until time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.interrupted {
		return errInterrupted
	}
	// A server without deadlines only lacks this protection.
	_ = b.control.SetReadDeadline(until)
	return nil
}

// interrupt ends the present read and all later ones.
func (b *idleBody) interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.interrupted = true
	_ = b.control.SetReadDeadline(time.Unix(1, 0))
}

func writeOffset(w http.ResponseWriter, status int, id string, offset int64) {
	w.Header().Set(offsetHeader, strconv.FormatInt(offset, 10))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(struct {
		ID     string `json:"id"`
		Offset int64  `json:"offset"`
	}{id, offset})
}

// writeError answers in the form of the zone's REST API.
func writeError(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	switch {
	case errors.Is(err, errdefs.ErrInvalidArgument):
		code = http.StatusBadRequest
	case errors.Is(err, errdefs.ErrPermissionDenied):
		code = http.StatusForbidden
	case errors.Is(err, errdefs.ErrNotFound):
		code = http.StatusNotFound
	case errors.Is(err, errdefs.ErrOutOfRange), errors.Is(err, errdefs.ErrFailedPrecondition), errors.Is(err, errdefs.ErrAborted):
		code = http.StatusConflict
	case errors.Is(err, errdefs.ErrResourceExhausted):
		code = http.StatusRequestEntityTooLarge
	case errors.Is(err, errdefs.ErrUnavailable):
		code = http.StatusServiceUnavailable
	}
	answer := status.Convert(wire.Status(err))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}{int(answer.Code()), answer.Message()})
}
