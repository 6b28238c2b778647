# A server of one thread that keeps connections, as Perl's daemon does it: it reads one to its end before it
# takes up the next, and counts how often it waited in vain for a client that had left.
use strict;
use HTTP::Daemon;
use HTTP::Response;

my $waits = 0;
my $daemon = HTTP::Daemon->new(LocalAddr => '0.0.0.0', LocalPort => 80, ReuseAddr => 1, Listen => 16)
    or die "no daemon: $!";
while (my $client = $daemon->accept) {
    $client->timeout(3);
    while (my $request = $client->get_request) {
        my $text = $request->uri->path eq '/waits' ? "waits $waits\n" : "ok\n";
        $client->send_response(HTTP::Response->new(200, 'OK', ['Content-Length' => length $text], $text));
    }
    $waits++ if $client->reason =~ /^Timeout/;
    $client->close;
}
