insert into directors (id, name, born) values (1, 'Fritz Lang', 1890), (2, 'Ridley Scott', 1937), (3, 'Nobody', null);
insert into films (id, title, year, director_id, tags, details, rating, released, shown) values
  (1, 'Metropolis', 1927, 1, '{silent,robots}', '{"country": "de", "score": {"imdb": 8.3}, "cast": ["Maria", "Freder"]}', 8.3, '1927-01-10', '[1927,1930)'),
  (2, 'M', 1931, 1, '{crime}', '{"country": "de", "score": {"imdb": 8.3}}', 8.3, '1931-05-11', '[1931,1935)'),
  (3, 'Blade Runner', 1982, 2, '{robots,noir}', '{"country": "us", "score": {"imdb": 8.1}}', 8.1, '1982-06-25', '[1982,1990)'),
  (4, 'Alien', 1979, 2, '{space}', '{"country": "us", "score": {"imdb": 8.5}}', 8.5, '1979-05-25', null),
  (5, 'Running "Wild", (again)', 2001, null, '{}', '{}', null, null, null);
insert into actors (id, name) values (1, 'Brigitte Helm'), (2, 'Peter Lorre'), (3, 'Harrison Ford'), (4, 'Sigourney Weaver'), (5, 'Rutger Hauer');
insert into roles values (1, 1, 'Maria'), (2, 2, 'Hans Beckert'), (3, 3, 'Deckard'), (3, 5, 'Roy Batty'), (4, 4, 'Ripley');
insert into facts values (1, 153), (3, 117);
insert into letters (id, sender_id, recipient_id, body) values (1, 3, 5, 'Time to die?'), (2, 5, 3, 'Tears in rain');
insert into secrets values (1, 'nobody may read this');
select setval(pg_get_serial_sequence(name, 'id'), 100) from unnest(array['directors', 'films', 'actors', 'letters', 'notes']) as name;
