-- Which sellers are top, premium or a risk? By revenue of paid orders in the months that have ended, and by return rate.
-- Growing (declining): each of the last three months is above (below) the one before it.
WITH months AS (
    SELECT DISTINCT "Year" AS year, "Month" AS month
    FROM gold."DimDate"
    WHERE "DateKey" BETWEEN (SELECT min("OrderDateKey") FROM gold."FactSales")
                        AND (SELECT max("OrderDateKey") FROM gold."FactSales")
      AND "Date" < date_trunc('month', now())
),
sold AS (
    SELECT f."SellerID" AS seller_id, d."Year" AS year, d."Month" AS month, sum(f."Revenue") AS revenue
    FROM gold."FactSales" f
    JOIN gold."DimDate" d ON d."DateKey" = f."OrderDateKey"
    WHERE f."IsPaid"
    GROUP BY 1, 2, 3
),
by_month AS (
    SELECT s."SellerID" AS seller_id, m.year, m.month, coalesce(x.revenue, 0) AS revenue
    FROM gold."DimSeller" s
    CROSS JOIN months m
    LEFT JOIN sold x ON x.seller_id = s."SellerID" AND x.year = m.year AND x.month = m.month
),
changes AS (
    SELECT seller_id, revenue,
           revenue - lag(revenue) OVER (PARTITION BY seller_id ORDER BY year, month) AS change,
           row_number() OVER (PARTITION BY seller_id ORDER BY year DESC, month DESC) AS age
    FROM by_month
),
trends AS (
    SELECT seller_id, sum(revenue) AS revenue,
           coalesce(min(change) FILTER (WHERE age <= 3) > 0, false) AS grows,
           coalesce(max(change) FILTER (WHERE age <= 3) < 0, false) AS declines
    FROM changes
    GROUP BY seller_id
),
returns AS (
    SELECT f."SellerID" AS seller_id,
           100.0 * count(DISTINCT f."OrderID") FILTER (WHERE st."StatusName" = 'Returned')
               / count(DISTINCT f."OrderID") AS return_percent
    FROM gold."FactSales" f
    JOIN gold."DimOrderStatus" st ON st."StatusID" = f."StatusID"
    WHERE st."StatusName" IN ('Delivered', 'Returned')
    GROUP BY f."SellerID"
),
ranked AS (
    SELECT t.*, r.return_percent,
           rank() OVER (ORDER BY t.revenue DESC) AS place, count(*) OVER () AS sellers
    FROM trends t
    LEFT JOIN returns r ON r.seller_id = t.seller_id
)
SELECT k.seller_id, s."SellerName" AS seller, k.revenue,
       CASE WHEN grows THEN 'growing' WHEN declines THEN 'declining' ELSE 'mixed' END AS trend,
       round(return_percent, 2) AS return_percent,
       CASE WHEN return_percent > 3 OR declines THEN 'risk'
            WHEN return_percent >= 1.5 THEN 'premium'
            WHEN place <= ceil(sellers / 10.0) AND grows THEN 'top'
            ELSE 'regular' END AS segment
FROM ranked k
JOIN gold."DimSeller" s ON s."SellerID" = k.seller_id
ORDER BY k.revenue DESC, k.seller_id;
