package service

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// readTimeout is how long a REST client may take to read one state of an app.
const readTimeout = 30 * time.Second

// AppReads serves reads of apps over REST. The answers are the gateway's, without its decoded and encoded copies for every
// reader.
func AppReads(apps Apps) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/apps", func(w http.ResponseWriter, r *http.Request) {
		request := &apiv1.ListAppsRequest{}
		if err := (&queryParser{}).Parse(request, r.URL.Query(), utilities.NewDoubleArray(nil)); err != nil {
			Refuse(w, status.Error(codes.InvalidArgument, err.Error()))
			return
		}
		page, err := apps.ListApps(request)
		if err != nil {
			Refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		before := `{"apps":[`
		for _, view := range page.Apps {
			if err := write(w, before, view, ""); err != nil {
				return // the client has disconnected
			}
			before = ","
		}
		if len(page.Apps) > 0 {
			before = ""
		}
		summary := []byte("null")
		if page.Summary != nil {
			if summary, err = wire.JSON.Marshal(page.Summary); err != nil {
				return
			}
		}
		_, _ = fmt.Fprintf(w, `%s],"nextPageToken":%q,"summary":%s}`, before, page.Next, summary)
	})
	mux.HandleFunc("GET /v1/apps/{name}", func(w http.ResponseWriter, r *http.Request) {
		view, err := apps.App(r.PathValue("name"))
		if err != nil {
			Refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = write(w, "", view, "")
	})
	mux.HandleFunc("GET /v1/apps/{name}/watch", func(w http.ResponseWriter, r *http.Request) {
		changes, err := apps.WatchApp(r.PathValue("name"))
		if err != nil {
			Refuse(w, err)
			return
		}
		defer changes.Close()
		w.Header().Set("Content-Type", "application/json")
		for {
			views, err := changes.Next(r.Context())
			if err != nil {
				// The error at the end of a stream has the gateway's form.
				_ = json.NewEncoder(w).Encode(map[string]any{"error": refusal(status.Convert(wire.Status(err)))})
				return
			}
			if err := write(w, "", views[len(views)-1], "\n"); err != nil {
				return
			}
		}
	})
	return mux
}

// write sends one view, with text before and after it.
func write(w http.ResponseWriter, before string, view *AppView, after string) error {
	text, err := view.JSON()
	if err != nil {
		return err
	}
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(readTimeout)) // a test's recorder has no deadline
	for _, part := range [][]byte{[]byte(before), text, []byte(after)} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	_ = control.Flush()
	_ = control.SetWriteDeadline(time.Time{})
	return nil
}

// Refuse writes an error over REST in the gateway's form.
func Refuse(w http.ResponseWriter, err error) {
	answer := status.Convert(wire.Status(err))
	refuseWith(w, runtime.HTTPStatusFromCode(answer.Code()), answer)
}

func refuseWith(w http.ResponseWriter, httpStatus int, answer *status.Status) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(httpStatus)
	_ = json.NewEncoder(w).Encode(refusal(answer))
}

func refusal(answer *status.Status) map[string]any {
	return map[string]any{"code": answer.Code(), "message": answer.Message(), "details": []any{}}
}
