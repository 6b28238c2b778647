# Passes on what its one backend streams, as it comes.
vcl 4.0;

backend default { .host = "HOST"; .port = "PORT"; }

sub vcl_recv { return (pass); }

sub vcl_backend_response { set beresp.do_stream = true; }
